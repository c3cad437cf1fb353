"""The methods that train the selector, one per file."""
