"""Model folders: transformers, tokenizers and adapters, with their cards."""
