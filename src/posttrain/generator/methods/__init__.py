"""How the generator is trained: one file a method."""
