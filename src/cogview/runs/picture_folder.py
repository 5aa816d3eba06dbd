"""Where drawn pictures go: numbered folders, in which the same command goes on, and files that say what drew them."""

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
"""In a folder that is being filled: a line with the request, and one for each share of the pictures that is there."""
FORMAT, VERSION = "cogview-pictures", 2
_MAX_SHOWN = 6
_LEFTOVER = re.compile(r"\..+\.png\.\w{8}")  # of a process that was killed while it wrote a picture


class PictureFolder:
    """A numbered folder that is being filled with pictures, share by share.

    The journal is locked while a process is at work, and removed when all is there. A share is noted in it after its
    files were written, so what it notes is whole, however the process ends.

    Args:
        path: of the folder.
        journal: its file, open and locked, with the first line read or written.
        chosen: what was chosen when the folder was begun, such as a random seed.

    Attributes:
        num_kept: pictures that an earlier process has drawn.
    """

    def __init__(self, path: Path, journal: BinaryIO, chosen: Mapping[str, Any]) -> None:
        self.path, self.chosen, self.num_kept = path, chosen, 0
        self._journal = journal
        self._places = array("Q")  # of the line of each share; 0 if there is none
        self._num_earlier = 0
        self._read()

    def pictures(self, share: int) -> list[dict[str, Any]] | None:
        """Return what is noted of a share's pictures, with their paths, or None if not all of them are there.

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
        """Note that a share's files are there.

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
        """Yield what is noted of all pictures, in their order."""
        self._num_earlier = 0  # what was there a moment ago is not looked for again
        for share in range(len(self._places)):
            yield from self.pictures(share) or ()

    def tell_kept(self, num_pictures: int) -> None:
        """Say on stderr how many of the pictures there will be an earlier process has drawn, if any."""
        if self.num_kept:
            told = f"{min(self.num_kept, num_pictures):,} of {num_pictures:,} pictures are there"
            print(f"cogview: going on in {printable(str(self.path))}: {told}", file=sys.stderr)

    def finish(self) -> None:
        """Remove the journal, since all pictures are there; what it notes can be read on."""
        with suppress(PermissionError):  # Windows removes no open file
            (self.path / JOURNAL).unlink(missing_ok=True)

    def close(self, is_finished: bool) -> None:
        """Let go of the folder, and remove it if nothing came to lie in it."""
        self._journal.close()
        if is_finished or all(each.name == JOURNAL for each in self.path.iterdir()):
            (self.path / JOURNAL).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _read(self) -> None:
        """Find the lines of an earlier process, and cut off what it was writing when it was killed."""
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
    """Yield a new numbered folder in `parent`, or the one in which the same request was left unfinished.

    If the block ends without an error, the folder is finished. If nothing came to lie in it, it is removed.

    Args:
        parent: made if missing.
        request: all that the pictures depend on, as plain data.
        chosen: for a new folder: what is kept beside the request.

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
    """Return the last folder that was begun for the same request, and that nobody is at work in; None without any."""
    wanted = json.loads(json.dumps(header))
    for number in reversed(numbers):
        path = parent / f"{number:03d}"
        try:
            journal = (path / JOURNAL).open("r+b")
        except OSError:
            continue
        if try_lock(journal.fileno()):
            chosen = _same_request(journal.readline(), wanted)
            if chosen is not None and (path / JOURNAL).exists():  # whoever held the lock may have finished
                return PictureFolder(path, journal, chosen)
        journal.close()
    return None


def _same_request(line: bytes, wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what was chosen for a request, or None if it is another."""
    try:
        header = json.loads(line)
        return header["chosen"] if header | {"chosen": wanted["chosen"]} == wanted else None
    except (ValueError, KeyError, TypeError):
        return None


def _new(parent: Path, numbers: Sequence[int], header: Mapping[str, Any]) -> PictureFolder:
    """Make the next numbered folder."""
    for number in itertools.count(max(numbers, default=0) + 1):
        path = parent / f"{number:03d}"
        with suppress(FileExistsError):  # another process took this number just now
            path.mkdir()
            break
    journal = (path / JOURNAL).open("x+b")
    while not try_lock(journal.fileno()):  # somebody looks whether this is his, which is soon done
        pass
    journal.write(json.dumps(header).encode() + b"\n")
    journal.flush()
    return PictureFolder(path, journal, header["chosen"])


def save_picture(image: Image.Image, path: Path, text: str, facts: Mapping[str, Any]) -> None:
    """Write a picture as PNG, with what it was drawn for and with.

    Args:
        image: the picture.
        path: of its file.
        text: what it shows.
        facts: what draws it again from the same weights.

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
        f"{path} cannot be written ({error.strerror}): make room or give access; what is drawn is kept, and the same "
        "command goes on"
    )
