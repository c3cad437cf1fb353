"""Post-training of language models on verifiable numeric reasoning, as a DVC pipeline."""
