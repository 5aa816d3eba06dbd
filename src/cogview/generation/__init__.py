"""Sampling pictures with a key/value cache, and the pipeline that users call."""
