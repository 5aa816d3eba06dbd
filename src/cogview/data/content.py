"""Whether a data set is the very same: digests of all that results are made of, the bytes of its pictures included.

Sizes, times and names can be those of another file, as where a tar was replaced by one of the same length. Reading all
of it again takes a small part of the time that decoding and encoding take, so results are reused only after that.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from cogview.data.decoding import in_chunks, read_bytes
from cogview.data.pairs import Entry, Problem

_CHUNK_PICTURES = 256


def digest_of(entry: Entry, data: bytes | Problem | None = None) -> bytes:
    """Return the SHA-256 of a picture, its name and all that is said of it, or of a problem.

    Args:
        entry: the picture or problem.
        data: the bytes of the picture's file, or why they cannot be read, if that is known already.
    """
    if isinstance(entry, Problem):
        told: list[object] = [entry.where, entry.kind, entry.reason]
        return hashlib.sha256(json.dumps(told).encode()).digest()
    data = read_bytes(entry) if data is None else data
    content = data.reason if isinstance(data, Problem) else hashlib.sha256(data).hexdigest()
    told = [entry.name, entry.split, entry.orientation, content, *entry.texts]
    return hashlib.sha256(json.dumps(told).encode()).digest()


def digest_of_pixels(entries: Iterable[Entry]) -> str:
    """Return 16 hexadecimal digits of the pictures alone, in order, whatever is said of them; all of them are read.

    Args:
        entries: pictures and problems, of which only the pictures count.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for chunk in in_chunks(entries, _CHUNK_PICTURES):
            for each in threads.map(lambda entry: pixels_digest(entry, read_bytes(entry)), chunk):
                digest.update(each)
    return digest.hexdigest()[:16]


def pixels_digest(entry: Entry, data: bytes | Problem) -> bytes:
    """Return what `digest_of_pixels` takes of a picture: its bytes, and how they are to be turned.

    Args:
        entry: the picture; of a problem there is nothing to take.
        data: the bytes of its file, or why they cannot be read.
    """
    if isinstance(entry, Problem):
        return b""
    content = data.reason.encode() if isinstance(data, Problem) else data
    return hashlib.sha256(content).digest() + bytes([entry.orientation or 0])
