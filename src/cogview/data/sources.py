"""Choice of the reader of a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cogview.data.folder_contents import METADATA, FolderContents
from cogview.data.image_folder import ImageFolder, with_files_beside
from cogview.data.pairs import (
    CaptionedImage,
    Captions,
    Entry,
    PairSource,
    Problem,
    SourceState,
    belongs,
    passed_over,
)
from cogview.data.samples import OTHER_ARCHIVES
from cogview.data.tars import Tars, holds_pictures
from cogview.errors import CogViewError
from cogview.image.formats import HEAD_BYTES, verdict_on


class Joined:
    """Concatenation of data sets, such as the tars and the loose pictures of a folder.

    Args:
        sources: the data sets, at least one.
    """

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self._parts = [(source, number) for source in sources for number in range(source.num_parts)]
        self._sources = sources

    @property
    def num_parts(self) -> int:
        """Return the number of parts of all data sets."""
        return len(self._parts)

    def __len__(self) -> int:
        """Return an upper bound of the number of pictures, including unusable ones."""
        return sum(map(len, self._sources))

    def __iter__(self) -> Iterator[Entry]:
        """Yield pictures and problems in order."""
        for source in self._sources:
            yield from source

    def part(self, number: int) -> Iterator[Entry]:
        """Yield the pictures and problems of one part."""
        source, own_number = self._parts[number]
        return source.part(own_number)

    def expected(self) -> int:
        """Estimate the number of pictures."""
        return sum(source.expected() for source in self._sources)

    def state(self) -> SourceState:
        """Return the joint state of the data sets, to detect changes."""
        first, *others = (source.state() for source in self._sources)
        for state in others:
            first = first.joined(state)
        return first


def open_pairs(
    source: Path,
    split: str | None = None,
    captions: Captions = "required",
    metadata: Path | None = None,
) -> PairSource:
    """Open a data set in any of the supported formats.

    Args:
        source: a folder of pictures or of WebDataset tars or both, or one tar.
        split: only pictures that name this split or none; None for all.
        captions: whether pictures need them.
        metadata: for a folder, a file like `metadata.jsonl` elsewhere; pictures that it does not list are ignored.

    Raises:
        CogViewError: the source is missing, or has no pictures (with captions).
    """
    if not source.exists():
        raise CogViewError(f"{source} does not exist: give a folder of pictures, or WebDataset tars.")
    if metadata is not None or (source / METADATA).is_file():
        return ImageFolder(source, split, metadata, captions)
    if not source.is_dir():
        _refuse_other_files(source)
        return Tars(source, split, captions)
    contents = FolderContents.of(source)
    if not contents.tars:
        return ImageFolder(source, split, captions=captions, contents=contents)
    loose = [] if not contents.pictures else with_files_beside(contents, captions)
    if not any(isinstance(entry, CaptionedImage) and belongs(entry.split, split) for entry in loose):
        problems = [entry for entry in loose or contents.problems if isinstance(entry, Problem)]
        return Tars(source, split, captions, contents, problems)
    filled = {path: holds_pictures(path) for path in contents.tars}
    empty = [
        passed_over(path.relative_to(source).as_posix(), "a tar without pictures that can be read")
        for path, is_filled in filled.items()
        if not is_filled
    ]
    contents = replace(
        contents,
        tars=tuple(path for path, is_filled in filled.items() if is_filled),
        problems=(*contents.problems, *empty),
    )
    files = ImageFolder(source, split, captions=captions, contents=contents)
    return Joined([Tars(source, split, captions, contents), files]) if contents.tars else files


def _refuse_other_files(path: Path) -> None:
    """Refuse a file that is clearly no tar.

    Raises:
        CogViewError: it is a text, a picture, another archive or no regular file.
    """
    if not path.is_file():
        raise CogViewError(f"{path} is a pipe or a device: give a folder of pictures, or WebDataset tars.")
    name = path.name.lower()
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if name.endswith(".jsonl"):
        reason = f"is a list of pictures: give their folder, {path.parent}"
    elif name.endswith((".json", ".txt", ".csv", ".parquet")):
        reason = "is a text or table: give the folder of the pictures, or a tar of them"
    elif verdict_on(path.suffix, lambda: head) == "picture":
        reason = f"is a single picture: give the folder of pictures, {path.parent}"
    elif name.endswith(OTHER_ARCHIVES):
        reason = "is an archive of an unsupported format: unpack it, and give the folder"
    else:
        return
    raise CogViewError(f"{path} {reason}.")
