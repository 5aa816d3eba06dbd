"""Pieces and codes to tokens: the only code that knows the order of tokens."""
