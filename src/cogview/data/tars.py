"""Reader of WebDataset tars."""

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

from cogview.data.folder_contents import FolderContents
from cogview.data.pairs import Captions, Entry, Problem, SourceState, passed_over
from cogview.data.samples import CAPTION_ENDINGS, FileName, Member, entries_of_group
from cogview.data.tar_members import DAMAGE, MAX_MEMBER_BYTES, TarMember, members_of
from cogview.errors import CogViewError
from cogview.image.formats import IMAGE_ENDINGS

COUNTED_IMAGES = 1000
APART = "its members don't lie side by side"

Members: TypeAlias = dict[str, Member]
"""Members by name, without the folder."""


class Tars:
    """Pictures of one or more tars, in order.

    Members with the same name up to the ending are a picture and its captions, as `read_sidecars` reads them. Each tar
    is a part of the data set.

    Args:
        source: a tar, or a folder with tars.
        split: only pictures that name this split or none; None for all.
        captions: whether pictures need them.
        contents: the folder's listing, if there is one already; only its tars are used.
        beside: problems to yield after the last tar.

    Raises:
        CogViewError: there are no tars, or none holds a picture.
    """

    def __init__(
        self,
        source: Path,
        split: str | None = None,
        captions: Captions = "required",
        contents: FolderContents | None = None,
        beside: Sequence[Problem] = (),
    ) -> None:
        self._split, self._captions, self._beside = split, captions, list(beside)
        if source.is_dir():
            self._paths = list((contents or FolderContents.of(source)).tars)
            self._names = [path.relative_to(source).as_posix() for path in self._paths]
        else:
            self._paths, self._names = [source], [source.name]
        if not self._paths:
            raise CogViewError(f"{source} holds no .tar files: give a tar, or a folder of tars.")
        self._num_images: int | None = None
        if not any(map(holds_pictures, self._paths)):
            problem = next((entry for entry in self if isinstance(entry, Problem)), None)
            endings = ", ".join(IMAGE_ENDINGS)
            raise CogViewError(
                f"The tars of {source} hold no pictures ({endings} and others) that can be read"
                f"{f' ({problem})' if problem else ''}: give others."
            )

    @property
    def num_parts(self) -> int:
        """Return the number of tars."""
        return len(self._paths)

    def __len__(self) -> int:
        """Return the number of pictures in the tars, of all splits; reads all headers."""
        if self._num_images is None:
            self._num_images = sum(_count_images(path)[0] for path in self._paths)
        return self._num_images

    def __iter__(self) -> Iterator[Entry]:
        """Yield pictures and problems in order."""
        for number in range(self.num_parts):
            yield from self.part(number)

    def part(self, number: int) -> Iterator[Entry]:
        """Yield the pictures and problems of a tar in order."""
        path, name = self._paths[number], self._names[number]
        try:
            yield from self._entries(path, name)
        except DAMAGE as error:
            reason = f"damaged, what follows in it is lost ({error})"
            yield Problem(where=name, kind="damaged tar", reason=reason)
        if number == self.num_parts - 1:
            yield from self._beside

    def expected(self) -> int:
        """Estimate the number of pictures from the start of the first tar that has any."""
        counts = (_count_images(path, COUNTED_IMAGES) for path in self._paths)
        num_images, num_bytes = next(count for count in counts if count[0])
        return round(num_images * sum(path.stat().st_size for path in self._paths) / num_bytes)

    def state(self) -> SourceState:
        """Return the state of the tars, to detect changes."""
        return SourceState.of(self._paths, [problem.where for problem in self._beside])

    def _entries(self, path: Path, tar_name: str) -> Iterator[Entry]:
        seen: set[str] = set()
        own = _OwnPictures(path)

        def full_name(name: str) -> str:
            return f"{tar_name} {name}"

        for sample, name, members in _groups(path, self._captions):
            if isinstance(members, Problem):
                yield Problem(where=full_name(members.where), kind=members.kind, reason=members.reason)
            elif members and name in seen:
                yield Problem(where=full_name(name), kind="bad caption", reason=APART)
            elif members:
                seen.add(name)
                has_own = partial(own.__contains__, sample)
                yield from entries_of_group(
                    list(members.values()), self._captions, self._split, has_own, full_name
                )


class _OwnPictures:
    """Samples of a tar that have a picture of their own name; reads the headers lazily."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._samples: set[str] | None = None

    def __contains__(self, sample: object) -> bool:
        if self._samples is None:
            self._samples = set()
            with suppress(*DAMAGE):  # reported when the pictures are read
                for member in members_of(self._path):
                    if isinstance(member, TarMember) and member.is_picture:
                        name = FileName.of(member.name)
                        if name.group == name.sample:
                            self._samples.add(name.sample)
        return sample in self._samples


def holds_pictures(path: Path) -> bool:
    """Return whether a tar has a picture that can be read."""
    return _count_images(path, 1)[0] > 0


def _count_images(path: Path, most: int | None = None) -> tuple[int, int]:
    """Return the number of pictures in a tar and their bytes, from its readable headers.

    Args:
        path: the tar.
        most: pictures after which to stop; None for all.
    """
    num_images = num_bytes = 0
    with suppress(*DAMAGE):  # reported when the pictures are read
        for member in members_of(path):
            if isinstance(member, TarMember):
                num_images += member.is_picture
                num_bytes = member.end
                if num_images == most:
                    return num_images, num_bytes
        num_bytes = path.stat().st_size
    return num_images, num_bytes


class _Group:
    """Members that share a name up to the ending.

    Pictures beyond `MAX_MEMBER_BYTES` in all are read lazily, in another pass over the tar.
    """

    def __init__(self, path: Path) -> None:
        self.members: Members = {}
        self._path, self._num_bytes = path, 0
        self._again: Iterator[TarMember | Problem | None] | None = None

    def add(self, member: TarMember) -> None:
        """Add a member; it replaces one of the same name."""
        self.members.pop(member.name, None)
        if member.is_picture and self._num_bytes > MAX_MEMBER_BYTES:
            self.members[member.name] = Member(
                member.name, partial(self._content_of, member.name, member.end)
            )
            return
        content = member.read()
        self._num_bytes += len(content or b"")
        self.members[member.name] = Member(member.name, content)

    def _content_of(self, name: str, end: int) -> bytes | None:
        """Return the content of the member with this name and end; calls must follow the order of the tar.

        Raises:
            DAMAGE: any of these errors.
        """
        if self._again is None:
            self._again = members_of(self._path)
        for member in self._again:
            if isinstance(member, TarMember) and (member.name, member.end) == (name, end):
                return member.read()
        raise tarfile.ReadError("it was changed while it was read")


def _groups(path: Path, captions: Captions) -> Iterator[tuple[str, str, Members | Problem]]:
    """Yield (sample, name, members) of each run of members that share a name up to the ending, and problems.

    The group of the sample's own name comes last and may be empty. Groups of longer names, `sample.more`, come as soon
    as the next begins, to bound memory: one sample may be a whole tar of `2024.one.jpg`, `2024.two.jpg` and so on.
    """
    sample = ""
    groups: dict[str, _Group] = {}  # the sample's own, then at most one more
    try:
        for member in members_of(path):
            if member is None:
                yield from _closed(sample, groups)
                groups = {}
                continue
            if isinstance(member, Problem):
                yield "", "", member
                continue
            name = FileName.of(member.name)
            if name.sample != sample:
                yield from _closed(sample, groups)
                sample, groups = name.sample, {name.sample: _Group(path)}
            elif name.group not in groups and len(groups) == 2:
                longer, group = groups.popitem()
                yield sample, longer, group.members
            group = groups.setdefault(name.group, _Group(path))
            if member.name in group.members:
                reason = "another file of this name follows in the tar, which counts"
                yield "", "", passed_over(member.name, reason)
            group.add(member)
    except DAMAGE:
        yield from _before_damage(sample, groups, captions)
        raise


def _closed(sample: str, groups: dict[str, _Group]) -> Iterator[tuple[str, str, Members]]:
    """Yield the remaining groups of a sample, its own last."""
    for name, group in reversed(groups.items()):
        yield sample, name, group.members


def _before_damage(
    sample: str, groups: dict[str, _Group], captions: Captions
) -> Iterator[tuple[str, str, Members | Problem]]:
    """Yield the remaining groups of a sample where a tar is damaged; their captions may be lost."""
    for _, name, members in _closed(sample, groups):
        endings = {FileName.of(each).ending.lower() for each in members}
        if captions == "optional" or not endings.isdisjoint(CAPTION_ENDINGS):
            yield sample, name, members
            continue
        for each in members:
            reason = "its captions are lost with what follows"
            yield "", "", Problem(where=each, kind="no caption", reason=reason)
