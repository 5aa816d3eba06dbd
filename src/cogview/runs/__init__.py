"""Whole runs: train, tokenize, evaluate, draw. What the command line calls, and a program can."""
