"""Which reader a user's data set needs."""

from pathlib import Path

from cogview.data.image_folder import METADATA, ImageFolder
from cogview.data.pairs import PairSource
from cogview.data.tars import Tars
from cogview.errors import CogViewError


def open_pairs(source: Path, split: str | None = None) -> PairSource:
    """Return the pictures of a data set, in whatever of the known forms it comes.

    Args:
        source: an image folder, a folder of WebDataset tars, or one tar.
        split: give only the pictures that name this split or none; None gives all.

    Raises:
        CogViewError: there is nothing there, or no pictures with captions.
    """
    if not source.exists():
        raise CogViewError(f"{source} does not exist: give a folder of pictures, or WebDataset tars.")
    if source.is_file() or (not (source / METADATA).is_file() and any(source.glob("*.tar"))):
        return Tars(source, split)
    return ImageFolder(source, split)
