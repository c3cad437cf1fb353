"""BabyAI (Chevalier-Boisvert et al. 2019): missions such as `go to the red ball` in a world of rooms, keys and doors.

The engine is that of the package minigrid. What a policy reads and does has the form of AgentGym (Xi et al. 2024).
"""
