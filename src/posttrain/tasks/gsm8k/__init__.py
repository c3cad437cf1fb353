"""GSM8K: grade-school word problems, answered by reasoning in words that ends with a number (Cobbe et al. 2021)."""
