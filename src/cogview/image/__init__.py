"""Pixels to codes and back."""
