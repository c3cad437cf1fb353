"""How the selector is trained: one file a method."""
