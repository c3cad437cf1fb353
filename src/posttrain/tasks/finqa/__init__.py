"""FinQA: questions over pages of financial reports, answered by a small arithmetic program."""
