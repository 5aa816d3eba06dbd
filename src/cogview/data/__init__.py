"""Data sets of captioned pictures, token shards and training batches."""
