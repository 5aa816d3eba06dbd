"""Conversion of options to command-line flags."""

import tyro

FLAT = tyro.conf.arg(name="")
"""Annotation of a parameter that holds options: their flags get no prefix."""
