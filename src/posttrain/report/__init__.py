"""The report: comparisons in sentences, tables and plots, and a browser of questions with their answers."""
