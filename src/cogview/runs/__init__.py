"""Whole runs (train, tokenize, evaluate, draw), for the command line and for programs."""
