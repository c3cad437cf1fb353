"""ALFWorld (Shridhar et al. 2021): household tasks in text, such as `put a hot potato in sinkbasin`.

The engine is that of the packages alfworld and textworld (`engine.py`). Games are the user's, in alfworld's files, or
generated for alfworld's own domain.
"""
