"""Records of token shards: their settings, contents and digests."""

from dataclasses import asdict, dataclass
from typing import Any

from cogview.data.shards import ShardFile
from cogview.data.token_report import ShardStatistics
from cogview.text.config import CaptionCase


@dataclass(frozen=True, kw_only=True)
class Request:
    """Settings that determine the bytes of a folder of tokens.

    Args:
        source: fingerprint of the data set.
        split: requested split.
        size_pixels: side of the square that each picture is resized and cropped to.
        max_text_pieces: longer captions are counted.
        batch_size: pictures encoded at once; can change some codes to near neighbours through rounding.
        pairs_per_shard: pictures and problems of the data set per shard.
        device: "cpu" or "cuda", which round differently.
        precision: precision of the encoder, "float32" or "bfloat16".
        image_tokenizer: its fingerprint.
        text_tokenizer: its fingerprint.
        text_case: how captions are read.
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
    text_case: CaptionCase = "as_written"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data; captions as written are not named, as in earlier versions."""
        fields = asdict(self)
        if self.text_case == "as_written":
            del fields["text_case"]
        return fields


@dataclass(frozen=True, order=True)
class ShardNumber:
    """Number of a shard; each part of a data set has shards of its own, so that parts are independent.

    Args:
        part: part of the data set, from 0.
        place: place in the part, from 0.
    """

    part: int
    place: int

    def __str__(self) -> str:
        return f"{self.part:05d}-{self.place:05d}"

    @classmethod
    def parse(cls, text: str) -> "ShardNumber":
        """Parse a number written by `str`.

        Raises:
            ValueError: it is malformed.
        """
        part, place = map(int, text.split("-"))
        return cls(part, place)


@dataclass(frozen=True, kw_only=True)
class ShardDigest:
    """Digest of an existing shard's source, to detect changes of the data set.

    Args:
        content: SHA-256 of its entries and of all bytes of their files, in hexadecimal.
        ends_part: whether it is the last of its part.
        num_entries: number of entries of the data set in it.
    """

    content: str
    ends_part: bool
    num_entries: int = 0

    def is_of(self, content: str, ends_part: bool) -> bool:
        """Return whether content and place are the same."""
        return (self.content, self.ends_part) == (content, ends_part)


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """Record of a finished shard.

    Args:
        ends_part: whether it is the last of its part.
        content: SHA-256 of its entries and of all bytes of their files, in hexadecimal.
        shard: its file; None without usable pictures.
        num_bytes: size of the file.
        grid: rows and columns of codes.
        tally: statistics of its entries.
    """

    ends_part: bool
    content: str
    shard: ShardFile | None
    num_bytes: int
    grid: tuple[int, int] | None
    tally: ShardStatistics

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return vars(self) | {
            "shard": self.shard and asdict(self.shard),
            "tally": self.tally.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ShardRecord":
        """Create a record from the data of `to_json`.

        Raises:
            KeyError: a field is missing.
            TypeError: a field has another type or is unknown.
            ValueError: a number is malformed.
        """
        parsed = {
            "shard": values["shard"] and ShardFile(**values["shard"]),
            "grid": values["grid"] and tuple(values["grid"]),
            "tally": ShardStatistics.from_json(values["tally"]),
        }
        return cls(**values | parsed)
