"""The report: what was compared, and a browser of questions with the answers they got."""
