"""One flat training loop for both stages."""
