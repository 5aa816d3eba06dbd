"""Models as people share them: transformers, tokenizers and adapters in folders, with their cards."""
