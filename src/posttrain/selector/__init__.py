"""The selection policy: a language model that scores K candidate answers after reading the question
once.
"""
