"""Codes of the pictures a run is given, and its report of unreadable ones."""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError, printable
from cogview.generation.contact_sheet import is_contact_sheet
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import UnusableImage
from cogview.runs.progress_bar import progress_bar
from cogview.sequence.template import Codes


def tell_decoded(pipeline: Pipeline, default_pixels: int | None = None) -> None:
    """Print that a decoder enlarges the pictures, and what else can.

    Args:
        pipeline: of the model.
        default_pixels: side of the pictures, if it is the same without upscaling.
    """
    names = ", ".join(pipeline.upscaler_names)
    same = f" to {default_pixels} pixels, as without --upscale" if default_pixels else ""
    other = f"; --upscaler {names} draws more codes instead" if names else ""
    print(f"cogview: enlarged by the image tokenizer's decoder{same}{other}", file=sys.stderr)


class PictureCodes:
    """Codes of pictures by path, with a warning for each that cannot be read.

    Contact sheets, which `out/001/*.png` includes, are skipped with one line on stderr.

    Args:
        paths: of the pictures.
        codes_of: encodes one picture, or refuses it.

    Attributes:
        codes: of the readable pictures, in the order of the paths.
        problems: path and reason of the others.
        sheets: skipped contact sheets.

    Raises:
        UsageError: there are no pictures, or contact sheets only, or one is refused.
        CogViewError: none can be read; of a single one, the reason.
    """

    def __init__(self, paths: Sequence[Path], codes_of: Callable[[Path], list[Codes]]) -> None:
        if not paths:
            raise UsageError("there is no picture; give the path of at least one, after the text, if any")
        self.sheets = [path for path in paths if is_contact_sheet(path)]
        paths = [path for path in paths if path not in set(self.sheets)]
        if not paths:
            raise UsageError(
                f"{self.sheets[0]} is a contact sheet: give the paths of the pictures themselves"
            )
        if self.sheets:
            num, shown = len(self.sheets), printable(", ".join(map(str, self.sheets[:3])))
            print(
                f"cogview: {num} contact sheet{'s' * (num > 1)} passed over: {shown}{', ...' * (num > 3)}",
                file=sys.stderr,
            )
        self.codes: dict[Path, Tensor] = {}
        self.problems: list[dict[str, Any]] = []
        with progress_bar("reading", "pictures") as move:
            for number, path in enumerate(paths, start=1):
                try:
                    self.codes[path] = torch.from_numpy(codes_of(path)[0])
                except UnusableImage as error:
                    if len(paths) == 1:
                        raise
                    warnings.warn(str(error), stacklevel=1)
                    self.problems.append({"where": path, "reason": str(error)})
                if self.codes:
                    move(number, len(paths))
        self._num_named = len(paths)
        if not self.codes:
            raise CogViewError(f"none of the {len(paths)} pictures can be read; the warnings say why")

    def facts(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {"contact_sheets": self.sheets, "problems": self.problems}

    def refuse_problems(self) -> None:
        """Raise an error, after all other work, if a picture could not be read.

        Raises:
            CogViewError: a picture could not be read.
        """
        if self.problems:
            raise CogViewError(
                f"{len(self.problems)} of {self._num_named} pictures cannot be read; the warnings say why"
            )
