"""Numbered folders of drawn pictures, which the same command resumes, and PNG metadata."""

import io
import itertools
import json
import re
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

import cogview
from cogview.errors import CogViewError, printable
from cogview.files import atomic_write_bytes, try_lock
from cogview.image.picture_file import picture_file

JOURNAL = "unfinished.jsonl"
"""File of an unfinished folder: a line with the request, and one for each finished share of its pictures."""
FORMAT, VERSION = "cogview-pictures", 2
_MAX_SHOWN = 6
_LEFTOVER = re.compile(r"\..+\.png\.\w{8}")  # from a process killed while writing


class PictureFolder:
    """An unfinished numbered folder of pictures, filled share by share.

    The journal is locked by the process at work, and removed at the end. A share is recorded after its files are
    written, so all recorded shares are whole, however the process ends.

    Args:
        path: of the folder.
        journal: its file, open and locked, with the first line read or written.
        chosen: choices made when the folder was begun, such as a random seed.

    Attributes:
        num_kept: pictures of earlier processes.
    """

    def __init__(self, path: Path, journal: BinaryIO, chosen: Mapping[str, Any]) -> None:
        self.path, self.chosen, self.num_kept = path, chosen, 0
        self._journal = journal
        self._places = array("Q")  # offset of each share's line; 0 if there is none
        self._num_earlier = 0
        self._read()

    def pictures(self, share: int) -> list[dict[str, Any]] | None:
        """Return the records of a share's pictures, with paths, or None if some are missing.

        Args:
            share: its number, from 0.
        """
        if share >= len(self._places) or not self._places[share]:
            return None
        self._journal.seek(self._places[share])
        noted = json.loads(self._journal.readline())["pictures"]
        pictures = [each | {"path": self.path / each["path"]} for each in noted]
        if share < self._num_earlier and not all(each["path"].is_file() for each in pictures):
            return None
        return pictures

    def keep(self, share: int, pictures: Sequence[Mapping[str, Any]]) -> None:
        """Record a finished share.

        Args:
            share: its number, from 0.
            pictures: plain data of each; "path" is its file in this folder.

        Raises:
            CogViewError: the journal cannot be written.
        """
        noted = {"share": share, "pictures": [{**each, "path": each["path"].name} for each in pictures]}
        try:
            place = self._journal.seek(0, io.SEEK_END)
            self._journal.write(json.dumps(noted).encode() + b"\n")
            self._journal.flush()
        except OSError as error:
            raise _unwritable(self.path / JOURNAL, error) from error
        self._note(share, place)

    def all_pictures(self) -> Iterator[dict[str, Any]]:
        """Yield the records of all pictures in order."""
        self._num_earlier = 0  # skip the file checks: all were there a moment ago
        for share in range(len(self._places)):
            yield from self.pictures(share) or ()

    def tell_kept(self, num_pictures: int) -> None:
        """Print how many of the pictures earlier processes have drawn, if any."""
        if self.num_kept:
            progress = f"{min(self.num_kept, num_pictures):,} of {num_pictures:,} pictures are there"
            print(f"cogview: going on in {printable(str(self.path))}: {progress}", file=sys.stderr)

    def finish(self) -> None:
        """Remove the journal; its records can still be read."""
        with suppress(PermissionError):  # Windows cannot remove an open file
            (self.path / JOURNAL).unlink(missing_ok=True)

    def close(self, is_finished: bool) -> None:
        """Release the folder, and remove it if empty."""
        self._journal.close()
        if is_finished or all(each.name == JOURNAL for each in self.path.iterdir()):
            (self.path / JOURNAL).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _read(self) -> None:
        """Index an earlier process's lines, and cut off an unfinished last one."""
        place = self._journal.tell()
        while (line := self._journal.readline()).endswith(b"\n"):
            try:
                noted = json.loads(line)
                share, num_pictures = int(noted["share"]), len(noted["pictures"])
            except (ValueError, KeyError, TypeError):
                break
            self._note(share, place)
            self.num_kept += num_pictures
            place = self._journal.tell()
        self._journal.truncate(place)
        self._num_earlier = len(self._places)
        if self._num_earlier:
            for each in self.path.iterdir():
                if _LEFTOVER.fullmatch(each.name):
                    each.unlink()

    def _note(self, share: int, place: int) -> None:
        self._places.extend(0 for _ in range(share + 1 - len(self._places)))
        self._places[share] = place


@contextmanager
def picture_folder(
    parent: Path, request: Mapping[str, Any], chosen: Mapping[str, Any] | None = None
) -> Iterator[PictureFolder]:
    """Yield a new numbered folder in `parent`, or the unfinished one of the same request.

    A block without errors finishes the folder. An empty folder is removed.

    Args:
        parent: made if missing.
        request: all that the pictures depend on, as plain data.
        chosen: choices to record in a new folder.

    Raises:
        CogViewError: the folder cannot be made.
        KeyboardInterrupt: of the block, with a message that names the folder.
    """
    header = {"format": FORMAT, "version": VERSION, "request": request, "chosen": dict(chosen or {})}
    try:
        parent.mkdir(parents=True, exist_ok=True)
        numbers = sorted(int(path.name) for path in parent.iterdir() if re.fullmatch(r"\d{3,9}", path.name))
        folder = _left_unfinished(parent, numbers, header) or _new(parent, numbers, header)
    except OSError as error:
        raise CogViewError(
            f"no folder for the pictures can be made in {parent} ({error.strerror}); give another with --out"
        ) from error
    is_finished = False
    try:
        yield folder
        is_finished = True
    except KeyboardInterrupt as stop:
        done = [each["path"].name for each in folder.all_pictures()]
        if done:
            shown = ", ".join(done[:_MAX_SHOWN]) + " and others" * (len(done) > _MAX_SHOWN)
            raise KeyboardInterrupt(
                f"Stopped. {len(done):,} picture{'s are' if len(done) > 1 else ' is'} done and in {folder.path}: "
                f"{shown}. The same command draws the rest."
            ) from stop
        if any(each.suffix == ".png" for each in folder.path.iterdir()):
            raise KeyboardInterrupt(
                f"Stopped. What is drawn so far lies in {folder.path}. The same command draws the rest."
            ) from stop
        raise
    finally:
        folder.close(is_finished)


def _left_unfinished(parent: Path, numbers: Sequence[int], header: Mapping[str, Any]) -> PictureFolder | None:
    """Return the last unfinished folder of the same request that no process works in, or None."""
    wanted = json.loads(json.dumps(header))
    for number in reversed(numbers):
        path = parent / f"{number:03d}"
        try:
            journal = (path / JOURNAL).open("r+b")
        except OSError:
            continue
        if try_lock(journal.fileno()):
            chosen = _same_request(journal.readline(), wanted)
            if chosen is not None and (path / JOURNAL).exists():  # the lock's last holder may have finished
                return PictureFolder(path, journal, chosen)
        journal.close()
    return None


def _same_request(line: bytes, wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the recorded choices if a line has the same request, else None."""
    try:
        header = json.loads(line)
        return header["chosen"] if header | {"chosen": wanted["chosen"]} == wanted else None
    except (ValueError, KeyError, TypeError):
        return None


def _new(parent: Path, numbers: Sequence[int], header: Mapping[str, Any]) -> PictureFolder:
    """Make the next numbered folder."""
    for number in itertools.count(max(numbers, default=0) + 1):
        path = parent / f"{number:03d}"
        with suppress(FileExistsError):  # another process took this number
            path.mkdir()
            break
    journal = (path / JOURNAL).open("x+b")
    while not try_lock(journal.fileno()):  # another process holds it briefly to read the request
        pass
    journal.write(json.dumps(header).encode() + b"\n")
    journal.flush()
    return PictureFolder(path, journal, header["chosen"])


def save_picture(image: Image.Image, path: Path, text: str, facts: Mapping[str, Any]) -> None:
    """Write a picture as PNG with metadata.

    Args:
        image: the picture.
        path: of its file.
        text: what it shows.
        facts: the settings that reproduce it from the same weights.

    Raises:
        CogViewError: it cannot be written.
    """
    data = picture_file(image, text=text, facts=facts, software=f"cogview {cogview.__version__}")
    try:
        atomic_write_bytes(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> CogViewError:
    return CogViewError(
        f"{path} cannot be written ({error.strerror}): make room or give access, and give the same command "
        "again"
    )
