"""Metrics, intervals, comparison and plots; knows pools and rewards, no task."""
