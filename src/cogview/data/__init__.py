"""Pairs of pictures and words in, token shards out."""
