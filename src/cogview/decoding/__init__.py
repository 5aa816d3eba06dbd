"""Decoding engine: batched forward passes over prepared weights and a paged key/value pool."""
