"""GSM8K (Cobbe et al. 2021): grade-school word problems, answered by reasoning in words that ends with a number."""
