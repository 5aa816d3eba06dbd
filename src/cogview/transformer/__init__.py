"""The transformer: tokens to logits."""
