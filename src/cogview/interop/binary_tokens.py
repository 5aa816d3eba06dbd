"""Conversion of the authors' binary token sets to token shards and back.

A token set is a file of int32 rows without a header. A row has 64 text tokens, padded with -1, and the 1,024 codes of a
picture. Text tokens are piece + 8192.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int32

from cogview.data.shards import ShardFile, TokenKind, TokenShards, write_manifest, write_shard
from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_file
from cogview.folders import atomic_folder, refuse_taken
from cogview.image.config import FOLDER_NAME
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.released_layout import TEMPLATE, VOCABULARY
from cogview.text.tokenizer import TextTokenizer

GRID = (TEMPLATE.grid_rows, TEMPLATE.grid_columns)
NUM_TEXT_TOKENS = 64
PADDING = -1
_NUM_COLUMNS = NUM_TEXT_TOKENS + GRID[0] * GRID[1]
_ROW_BYTES = 4 * _NUM_COLUMNS
_ROW = np.dtype("<i4")


def is_binary_tokens(path: Path) -> bool:
    """Return whether a file starts with a valid row of a token set."""
    with path.open("rb") as file:
        start = file.read(_ROW_BYTES)
    if len(start) < _ROW_BYTES:
        return False
    return _fault(np.frombuffer(start, dtype=_ROW).reshape(1, _NUM_COLUMNS)) is None


def convert_binary_tokens(
    path: Path,
    out: Path,
    image_tokenizer: ImageTokenizer,
    text_tokenizer: TextTokenizer,
    *,
    pairs_per_shard: int = 10_000,
) -> int:
    """Convert a token set to token shards with both tokenizers, and return the number of pairs.

    Args:
        path: the token set; memory-mapped, one shard at a time.
        out: the folder to make; it must not exist, or be empty.
        image_tokenizer: of the codes, with 8,192 codes.
        text_tokenizer: of the pieces, with 50,000 pieces.
        pairs_per_shard: rows in one file.

    Raises:
        CogViewError: the file is truncated, or a row is invalid.
        UsageError: a tokenizer has the wrong size, or `out` is not empty.
    """
    for what, got, wanted in (
        ("image tokenizer has", image_tokenizer.num_codes, VOCABULARY.num_image_codes),
        ("text tokenizer has", text_tokenizer.num_pieces, VOCABULARY.num_text_pieces),
    ):
        if got != wanted:
            raise UsageError(
                f"the {what} {got:,} entries and the token sets of the release {wanted:,}: give the release's"
            )
    refuse_taken(out)
    num_rows, rest = divmod(path.stat().st_size, _ROW_BYTES)
    if rest or not num_rows:
        raise CogViewError(
            f"{path}: cut off in row {num_rows + 1}, a token set has {_ROW_BYTES:,} bytes a row; copy it again"
        )
    rows = np.memmap(path, dtype=_ROW, mode="r", shape=(num_rows, _NUM_COLUMNS))
    with atomic_folder(out) as unfinished:
        shards: list[ShardFile] = []
        for start in range(0, num_rows, pairs_per_shard):
            part = np.asarray(rows[start : start + pairs_per_shard], dtype=np.int32)
            if fault := _fault(part):
                raise CogViewError(f"{path}: row {start + fault[0] + 1} {fault[1]}; it is no token set")
            text, codes = part[:, :NUM_TEXT_TOKENS], part[:, NUM_TEXT_TOKENS:].astype(np.uint16)
            lengths = (text != PADDING).sum(1)
            pieces = (text - VOCABULARY.text_pieces.start).tolist()
            captions = [[row[:length]] for row, length in zip(pieces, lengths, strict=True)]
            name = f"tokens-{len(shards):05d}.safetensors"
            shards.append(write_shard(unfinished / name, codes, captions))
        kind = TokenKind(
            image_tokenizer=image_tokenizer.fingerprint,
            text_tokenizer=text_tokenizer.fingerprint,
            grid=GRID,
            num_codes=image_tokenizer.num_codes,
            num_pieces=text_tokenizer.num_pieces,
        )
        text_tokenizer.save(unfinished / "text.model")
        image_tokenizer.save_pretrained(unfinished / FOLDER_NAME)
        write_manifest(unfinished, kind, shards, {"num_captions": num_rows})
    return num_rows


def write_binary_tokens(folder: Path, out: Path) -> tuple[int, int]:
    """Convert token shards to a token set, with a row for each caption of each picture.

    Args:
        folder: token shards of 32 x 32 codes with the release's vocabulary.
        out: the file to make.

    Returns:
        The number of rows, and of those whose text was cut after 64 pieces.

    Raises:
        CogViewError: the shards are damaged.
        UsageError: they have another grid or vocabulary, or `out` exists.
    """
    if out.exists():
        raise UsageError(f"{out} exists: choose another path")
    shards = TokenShards(folder)
    actual = (*shards.grid, shards.num_codes, shards.num_pieces)
    wanted = (*GRID, VOCABULARY.num_image_codes, VOCABULARY.num_text_pieces)
    if actual != wanted:
        kind = "{}x{} codes of {:,} and {:,} text pieces"
        raise UsageError(f"{folder} has {kind.format(*actual)}; a token set is of {kind.format(*wanted)}")
    num_rows = num_clipped = 0
    row = np.empty(_NUM_COLUMNS, dtype=_ROW)
    with atomic_file(out, existing="refuse") as file:
        for index in range(len(shards)):
            row[NUM_TEXT_TOKENS:] = shards.codes(index)
            for caption in range(shards.num_captions(index)):
                pieces = shards.pieces(index, caption)
                text = pieces[:NUM_TEXT_TOKENS] + VOCABULARY.text_pieces.start
                row[: len(text)], row[len(text) : NUM_TEXT_TOKENS] = text, PADDING
                file.write(row.tobytes())
                num_rows += 1
                num_clipped += len(pieces) > NUM_TEXT_TOKENS
    return num_rows, num_clipped


def _fault(rows: Int32[np.ndarray, "n k"]) -> tuple[int, str] | None:
    """Return the index of the first invalid row and the reason; None if all are valid."""
    text, codes = rows[:, :NUM_TEXT_TOKENS], rows[:, NUM_TEXT_TOKENS:]
    is_padding = text == PADDING
    is_piece = (text >= VOCABULARY.text_pieces.start) & (text < VOCABULARY.text_pieces.stop)
    for reason, wrong in (
        ("has text tokens that are no pieces", ~(is_piece | is_padding)),
        ("has text after its padding", is_padding[:, :-1] & ~is_padding[:, 1:]),
        ("has codes that are not of the 8,192", (codes < 0) | (codes >= VOCABULARY.num_image_codes)),
    ):
        is_wrong = wrong.any(1)
        if is_wrong.any():
            return int(is_wrong.argmax()), reason
    return None
