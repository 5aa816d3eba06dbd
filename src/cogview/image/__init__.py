"""Image tokenizers, their decoders, and reading of pictures."""
