"""TextCraft: craft a goal item by commands from items that can be taken freely, some of which must be crafted first.

The engine is our own, of the rules that ADaPT (Prasad et al. 2024) published and AgentGym (Xi et al. 2024) plays by.
"""
