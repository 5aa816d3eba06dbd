"""Digests of a data set's contents, to decide whether cached results still apply.

They cover every byte: sizes, times and names can stay the same when a file is replaced. Reading costs little compared
with decoding and encoding.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from cogview.data.decoding import in_chunks, read_bytes
from cogview.data.pairs import Entry, Problem

_CHUNK_PICTURES = 256


def digest_of(entry: Entry, data: bytes | Problem | None = None) -> bytes:
    """Return the SHA-256 of a picture with its name, split and captions, or of a problem.

    Args:
        entry: the picture or problem.
        data: the result of `read_bytes`, if there is one already.
    """
    if isinstance(entry, Problem):
        fields: list[object] = [entry.where, entry.kind, entry.reason]
        return hashlib.sha256(json.dumps(fields).encode()).digest()
    data = read_bytes(entry) if data is None else data
    content = data.reason if isinstance(data, Problem) else hashlib.sha256(data).hexdigest()
    fields = [entry.name, entry.split, entry.orientation, content, *entry.texts]
    return hashlib.sha256(json.dumps(fields).encode()).digest()


def digest_of_pixels(entries: Iterable[Entry]) -> str:
    """Return 16 hexadecimal digits of all pictures in order, without captions; problems do not count."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for chunk in in_chunks(entries, _CHUNK_PICTURES):
            for each in threads.map(lambda entry: pixels_digest(entry, read_bytes(entry)), chunk):
                digest.update(each)
    return digest.hexdigest()[:16]


def pixels_digest(entry: Entry, data: bytes | Problem) -> bytes:
    """Return the digest of one picture's file and orientation; empty for a problem.

    Args:
        entry: the picture or problem.
        data: the result of `read_bytes`.
    """
    if isinstance(entry, Problem):
        return b""
    content = data.reason.encode() if isinstance(data, Problem) else data
    return hashlib.sha256(content).digest() + bytes([entry.orientation or 0])
