"""Token sequences: the only code that knows the order of tokens."""
