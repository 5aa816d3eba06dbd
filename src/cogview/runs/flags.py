"""Conversion of options to command-line flags.

A class of options with a `GROUP` has this title in the help, also for its subclasses.
"""

import tyro

FLAT = tyro.conf.arg(name="")
"""Annotation of a parameter that holds options: their flags get no prefix."""
