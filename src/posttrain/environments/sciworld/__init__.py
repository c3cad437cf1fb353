"""ScienceWorld (Wang et al. 2022): elementary science in a house of ten rooms, such as `boil water` or `find an animal`.

The engine is that of the package scienceworld, which runs on Java. Its tasks are those of AgentGym (Xi et al. 2024).
"""
