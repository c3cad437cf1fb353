"""What a policy that writes does when asked: sampling, episodes, rewards, records, preference pairs."""
