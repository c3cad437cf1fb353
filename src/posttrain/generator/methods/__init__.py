"""The methods that train the generator, one file each."""
