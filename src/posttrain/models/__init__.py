"""Base models: loading, LoRA, inspection, and the small model that is trained from scratch."""
