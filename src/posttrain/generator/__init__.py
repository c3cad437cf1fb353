"""The generator: a causal language model that writes its answer."""
