"""Decoding: one forward pass over prepared weights and a pool of keys and values, and the engine that schedules it."""
