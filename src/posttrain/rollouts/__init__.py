"""Rollouts of a generator: sampling, episodes, rewards, records and preference pairs."""
