"""Base models: loading, LoRA, sharding, tokens, inspection."""
