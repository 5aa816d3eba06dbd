"""What is written down of shards of tokens: all that their bytes depend on, and what they were made of."""

from dataclasses import asdict, dataclass
from typing import Any

from cogview.data.shards import ShardFile
from cogview.data.token_report import ShardStatistics


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that the bytes of a folder of tokens depend on.

    Args:
        source: fingerprint of the data set.
        split: the one that was asked for.
        size_pixels: side of the square that each picture is resized and cropped to.
        max_text_pieces: longer captions are counted.
        batch_size: pictures encoded at once; another number may turn codes into near neighbours on some devices.
        pairs_per_shard: pictures and problems of the data set that a shard is made of.
        device: "cpu" or "cuda", for the same reason.
        precision: of the encoder, "float32" or "bfloat16".
        image_tokenizer: its fingerprint.
        text_tokenizer: its fingerprint.
    """

    source: str
    split: str | None
    size_pixels: int
    max_text_pieces: int
    batch_size: int
    pairs_per_shard: int
    device: str
    precision: str
    image_tokenizer: str
    text_tokenizer: str


@dataclass(frozen=True, order=True)
class ShardNumber:
    """Which shard: the parts of a data set are cut into shards one by one, so that any can be made alone.

    Args:
        part: of the data set, from 0.
        place: in the part, from 0.
    """

    part: int
    place: int

    def __str__(self) -> str:
        return f"{self.part:05d}-{self.place:05d}"

    @classmethod
    def parse(cls, text: str) -> "ShardNumber":
        """Return the number that was written so.

        Raises:
            ValueError: none was.
        """
        part, place = map(int, text.split("-"))
        return cls(part, place)


@dataclass(frozen=True, kw_only=True)
class ShardDigest:
    """What is known of a shard that is there, to tell whether the data set is still the one that it was made of.

    Args:
        content: SHA-256 of its entries and of all bytes of their files, in hexadecimal.
        ends_part: nothing followed in its part of the data set.
        num_entries: how many entries of the data set it took.
    """

    content: str
    ends_part: bool
    num_entries: int = 0

    def is_of(self, content: str, ends_part: bool) -> bool:
        """Return whether it is of this content, and of this place in its part."""
        return (self.content, self.ends_part) == (content, ends_part)


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A shard that is done.

    Args:
        ends_part: nothing follows in its part of the data set.
        content: SHA-256 of its entries and of all bytes of their files, in hexadecimal.
        shard: its file; None if it has no picture that can be used.
        num_bytes: length of the file.
        grid: rows and columns of codes.
        tally: what was met.
    """

    ends_part: bool
    content: str
    shard: ShardFile | None
    num_bytes: int
    grid: tuple[int, int] | None
    tally: ShardStatistics

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return vars(self) | {
            "shard": self.shard and asdict(self.shard),
            "tally": self.tally.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ShardRecord":
        """Return what `to_json` gave.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another type, or unknown.
            ValueError: a number is none.
        """
        read = {
            "shard": values["shard"] and ShardFile(**values["shard"]),
            "grid": values["grid"] and tuple(values["grid"]),
            "tally": ShardStatistics.from_json(values["tally"]),
        }
        return cls(**values | read)
