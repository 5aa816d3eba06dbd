"""How options become flags of the command line."""

import tyro

FLAT = tyro.conf.arg(name="")
"""For a parameter or a field that holds options: their flags have no prefix."""
