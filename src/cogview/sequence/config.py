"""Options of token sequences. Imports neither torch nor numpy."""

from typing import Literal, TypeAlias

CaptionPositions: TypeAlias = Literal["from_zero", "as_drawn"]
"""Positions of a picture to caption: from zero, or as it is drawn."""
