"""Conversion of other projects' checkpoints and tokens."""
