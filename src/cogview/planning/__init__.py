"""Plans of a run's memory and time."""

MFU = 0.4
"""Assumed model FLOPs utilisation."""
