"""CogView, rebuilt."""
