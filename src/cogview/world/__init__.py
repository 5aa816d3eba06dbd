"""Synthetic data sets: objects, icons, scenes and their captions."""
