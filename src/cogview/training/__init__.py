"""Training loop of both stages."""
