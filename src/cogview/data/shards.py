"""Token shards: files of codes and pieces, ready to train on.

A folder with `manifest.json`, which names files like `tokens-00000.safetensors`, each with four arrays:
`codes` [pictures, codes per picture] uint16; `pieces` [all pieces] int32, caption after caption;
`piece_offsets` [captions + 1] int64, the start of each caption's pieces; `caption_offsets` [pictures + 1] int64, the
start of each picture's captions.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt16
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_bytes, atomic_write_json, read_bounded, sha256_of
from cogview.plain_json import parse_json
from cogview.text.config import CaptionCase
from cogview.text.known_words import KnownWords

FORMAT = "cogview-tokens"
VERSION = 1
MANIFEST = "manifest.json"
MAX_CODES = 1 << 16  # codes are stored in 16 bits
_MOST = 2**30  # exclusive bound on a manifest's numbers

_REBUILD = "make it again with `cogview tokenize`"


@dataclass(frozen=True, kw_only=True)
class TokenKind:
    """Tokenizers, grid and vocabulary of a folder of shards.

    Args:
        image_tokenizer: fingerprint of the image tokenizer.
        text_tokenizer: fingerprint of the text tokenizer.
        grid: rows and columns of codes.
        num_codes: size of the codebook, at most 65,536.
        num_pieces: size of the text vocabulary.
    """

    image_tokenizer: str
    text_tokenizer: str
    grid: tuple[int, int]
    num_codes: int
    num_pieces: int


def refuse_large_codebook(num_codes: int) -> None:
    """Refuse a codebook whose codes do not fit into 16 bits.

    Raises:
        UsageError: it has more than 65,536 codes.
    """
    if num_codes > MAX_CODES:
        raise UsageError(
            f"A codebook of {num_codes:,} is too large for token shards; wanted {MAX_CODES:,} at most."
        )


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """Manifest entry of a shard.

    Args:
        file: file name.
        num_pairs: pictures in it, at least 1.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    file: str
    num_pairs: int
    sha256: str


def write_shard(
    path: Path, codes: UInt16[np.ndarray, "n k"], captions: Sequence[Sequence[Sequence[int]]]
) -> ShardFile:
    """Write a shard, whole or not at all.

    Args:
        path: the file.
        codes: codes of each picture, row by row.
        captions: for each picture the pieces of each of its captions, at least one caption.
    """
    assert len(codes) == len(captions) > 0
    assert all(captions)
    flat = [pieces for texts in captions for pieces in texts]
    arrays = {
        "codes": codes,
        "pieces": np.array([piece for pieces in flat for piece in pieces], dtype=np.int32),
        "piece_offsets": _offsets([len(pieces) for pieces in flat]),
        "caption_offsets": _offsets([len(texts) for texts in captions]),
    }
    data = save(arrays)
    atomic_write_bytes(path, data)
    return ShardFile(file=path.name, num_pairs=len(codes), sha256=hashlib.sha256(data).hexdigest())


def write_manifest(
    folder: Path, kind: TokenKind, shards: Sequence[ShardFile], report: Mapping[str, Any], **more: Any
) -> None:
    """Write the manifest of a folder, which marks it as finished.

    Args:
        folder: folder of the shards.
        kind: tokenizers, grid and vocabulary.
        shards: the shards in reading order, at least one.
        report: report of the tokenization, as plain data.
        more: other fields on the origin of the tokens.
    """
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        **asdict(kind),
        "num_pairs": sum(shard.num_pairs for shard in shards),
        "shards": [asdict(shard) for shard in shards],
        "report": dict(report),
        **more,
    }
    atomic_write_json(folder / MANIFEST, manifest)


def _offsets(lengths: Sequence[int]) -> Int64[np.ndarray, "n"]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    codes: Any  # lazy slices of the mapped file
    pieces: Any
    piece_offsets: Int64[np.ndarray, "m"]
    caption_offsets: Int64[np.ndarray, "n"]

    def pieces_between(self, start: int, stop: int) -> Int32[np.ndarray, "n"]:
        """Return a slice of the pieces; safetensors refuses empty ones at the array's end."""
        pieces: np.ndarray = self.pieces[start:stop] if start < stop else np.zeros(0, dtype=np.int32)
        return pieces

    def all_pieces(self) -> Int32[np.ndarray, "n"]:
        return self.pieces_between(0, int(self.piece_offsets[-1]))


class TokenShards:
    """Memory-mapped pairs of a folder of token shards; only offsets are in memory.

    Args:
        folder: folder with `manifest.json` and the shards.
        image_tokenizer: fingerprint that the image tokenizer must have; None for any.
        text_tokenizer: fingerprint that the text tokenizer must have; None for any.
        verify: check each file's SHA-256 first, about a second per gigabyte.

    Attributes:
        grid: rows and columns of codes.
        num_codes: size of the codebook.
        num_pieces: size of the text vocabulary.
        image_tokenizer: fingerprint of the image tokenizer.
        text_tokenizer: fingerprint of the text tokenizer.
        text_case: how the captions were read.
        size_pixels: side of the encoded pictures; None if unknown, as of a converted token set.
        fingerprint: 16 hexadecimal digits that change with any code or caption.
        report: report of the tokenization.
        words: words of the captions; None in folders of older versions.

    Raises:
        CogViewError: the folder is missing, unfinished, damaged, of another version, or made by other tokenizers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        image_tokenizer: str | None = None,
        text_tokenizer: str | None = None,
        verify: bool = True,
    ) -> None:
        self.folder = folder
        manifest = read_manifest(folder)
        for name, wanted in (("image_tokenizer", image_tokenizer), ("text_tokenizer", text_tokenizer)):
            if wanted is not None and manifest[name] != wanted:
                raise CogViewError(
                    f"{folder} was made with another {name.replace('_', ' ')} ({manifest[name]}) than is given "
                    f"({wanted}): use that one, or {_REBUILD}."
                )
        self.grid: tuple[int, int] = (manifest["grid"][0], manifest["grid"][1])
        self.num_codes: int = manifest["num_codes"]
        self.num_pieces: int = manifest["num_pieces"]
        self.image_tokenizer: str = manifest["image_tokenizer"]
        self.text_tokenizer: str = manifest["text_tokenizer"]
        self.text_case = text_case_of(manifest)
        self.size_pixels: int | None = manifest.get("request", {}).get("size_pixels")
        checksums = "".join(shard["sha256"] for shard in manifest["shards"])
        self.fingerprint = hashlib.sha256(checksums.encode()).hexdigest()[:16]
        self.report: dict[str, Any] = manifest["report"]
        self.words = KnownWords.in_folder(folder)
        self._shards = [self._open(folder / shard["file"], shard, verify) for shard in manifest["shards"]]
        self._starts = _offsets([shard["num_pairs"] for shard in manifest["shards"]])

    def __len__(self) -> int:
        """Return the number of pictures."""
        return int(self._starts[-1])

    def codes(self, index: int) -> UInt16[np.ndarray, "k"]:
        """Return the codes of a picture, row by row."""
        shard, row = self._find(index)
        codes: np.ndarray = shard.codes[row : row + 1][0]
        return codes

    def used_pieces(self) -> Int64[np.ndarray, "n"]:
        """Return the pieces that occur in captions, each once, sorted."""
        return np.unique(np.concatenate([shard.all_pieces() for shard in self._shards])).astype(np.int64)

    def num_captions(self, index: int) -> int:
        """Return the number of captions of a picture, at least 1."""
        shard, row = self._find(index)
        return int(shard.caption_offsets[row + 1] - shard.caption_offsets[row])

    def pieces(self, index: int, caption: int) -> Int32[np.ndarray, "n"]:
        """Return the pieces of a caption of a picture.

        Args:
            index: the picture.
            caption: 0 to `num_captions(index) - 1`.
        """
        shard, row = self._find(index)
        number = int(shard.caption_offsets[row]) + caption
        start, stop = map(int, shard.piece_offsets[number : number + 2])
        return shard.pieces_between(start, stop)

    def caption_lengths(self) -> Int64[np.ndarray, "m"]:
        """Return the number of pieces of every caption."""
        return np.concatenate([np.diff(shard.piece_offsets) for shard in self._shards])

    def captions_fingerprint(self) -> str:
        """Return 16 hexadecimal digits of the captions and the pictures that they belong to.

        It does not depend on the size of the pictures, nor on the division into shards.
        """
        texts, lengths, counts = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        for shard in self._shards:
            texts.update(shard.all_pieces().tobytes())
            lengths.update(np.diff(shard.piece_offsets).tobytes())
            counts.update(np.diff(shard.caption_offsets).tobytes())
        joined = texts.digest() + lengths.digest() + counts.digest()
        return hashlib.sha256(joined).hexdigest()[:16]

    def _find(self, index: int) -> tuple[_Shard, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"There is no picture {index} among {len(self)}.")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[number], index - int(self._starts[number])

    def _open(self, path: Path, described: Mapping[str, Any], verify: bool) -> _Shard:
        if not path.is_file():
            raise CogViewError(f"{path} is missing: copy the whole folder, or {_REBUILD}.")
        if verify and sha256_of(path) != described["sha256"]:
            raise CogViewError(
                f"{path} is damaged, it differs from the manifest: copy it again, or {_REBUILD}."
            )
        try:
            file: Any = safe_open(path, framework="numpy")
            shard = _Shard(
                codes=file.get_slice("codes"),
                pieces=file.get_slice("pieces"),
                piece_offsets=file.get_tensor("piece_offsets"),
                caption_offsets=file.get_tensor("caption_offsets"),
            )
            shape = shard.codes.get_shape()
        except SafetensorError as error:
            raise CogViewError(
                f"{path} is no token shard ({error}): copy it again, or {_REBUILD}."
            ) from error
        if shape != [described["num_pairs"], self.grid[0] * self.grid[1]]:
            raise CogViewError(
                f"{path} holds other pictures than the manifest says: copy it again, or {_REBUILD}."
            )
        return shard


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the checked manifest of a folder.

    Raises:
        CogViewError: the folder is missing, unfinished, of another version, or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CogViewError(f"{folder} holds no finished token shards, there is no {MANIFEST}: {_REBUILD}.")
    try:
        manifest: dict[str, Any] = parse_json(read_bounded(path))
        file_format, version = manifest["format"], manifest["version"]
        if (file_format, version) == (FORMAT, VERSION):
            _check_fields(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CogViewError(f"{path} is damaged ({error}): {_REBUILD}.") from error
    if file_format != FORMAT:
        raise CogViewError(f"{folder} holds {file_format!r}, not token shards ({FORMAT!r}): {_REBUILD}.")
    if version != VERSION:
        raise CogViewError(f"{folder} holds token shards of version {version}, wanted {VERSION}: {_REBUILD}.")
    return manifest


def text_case_of(manifest: Mapping[str, Any]) -> CaptionCase:
    """Return how the captions of a checked manifest were read."""
    return "lower" if manifest.get("request", {}).get("text_case") == "lower" else "as_written"


def _check_fields(manifest: dict[str, Any]) -> None:
    """Raise a ValueError, KeyError or TypeError if a manifest's fields are missing or malformed."""
    rows, columns = manifest["grid"]
    numbers = [rows, columns, manifest["num_codes"], manifest["num_pieces"]]
    names = [manifest["image_tokenizer"], manifest["text_tokenizer"]]
    for shard in manifest["shards"]:
        numbers.append(shard["num_pairs"])
        names += [shard["file"], shard["sha256"]]
        if Path(shard["file"]).name != shard["file"]:
            raise ValueError(f"{shard['file']!r} leads out of the folder")
    if not all(type(number) is int and 0 < number < _MOST for number in numbers):
        raise ValueError(f"a number is missing or not 1 to {_MOST - 1:,}")
    if manifest["num_codes"] > MAX_CODES:
        raise ValueError(f"{manifest['num_codes']:,} codes are more than 16 bits hold")
    parts = manifest["report"], manifest.get("request", {})
    if not (
        numbers[4:]
        and all(isinstance(name, str) for name in names)
        and all(isinstance(part, dict) for part in parts)
    ):
        raise ValueError("a field is of another type, or there are no shards")
