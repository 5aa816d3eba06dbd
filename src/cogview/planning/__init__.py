"""What a run will need, told without running it."""

MFU = 0.4
"""The share of a device's operations that a model's are assumed to be."""
