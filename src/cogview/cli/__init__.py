"""Command line: verbs parse flags, call a run and print its result."""
