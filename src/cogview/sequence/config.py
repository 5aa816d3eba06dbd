"""Choices of sequences. Neither torch nor numpy is imported here."""

from typing import Literal, TypeAlias

CaptionPositions: TypeAlias = Literal["from_zero", "as_drawn"]
"""Positions of a picture that is captioned: counted from zero, or those that it is drawn with."""
