"""The selector: a language model that reads a question once and scores K candidate answers."""
