"""PNG files without the parts that hold no pixels, for those whose text or colour profile stops the decoder."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 2**20
"""How long a text may be, unpacked, to be kept; Pillow refuses pictures with longer ones."""

_TRANSPARENCY = (b"tRNS",)
_ANIMATION_AND_EXIF = (b"acTL", b"fcTL", b"fdAT", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Texts that may say which side is up.
_ORIENTATION_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")


def without_extras(png: bytes) -> Iterator[bytes]:
    """Yield a PNG without whatever may be left out, fewer and fewer parts; nothing if there is nothing to leave out.

    First go texts and profiles but those that tell which side is up, then all that is not needed for the pixels.

    Args:
        png: a file's bytes, maybe of something else.
    """
    if not png.startswith(SIGNATURE):
        return
    before = png
    for is_kept in (_is_of_use, _is_transparency):
        kept = [SIGNATURE]
        for kind, content, whole in _chunks(png):
            if not kind or not kind[0] & 0x20 or is_kept(kind, content, whole):
                kept.append(whole)
        bare = b"".join(kept)
        if bare != before:
            yield bare
            before = bare


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield kind, content and all bytes of each chunk; the rest from the first that is not whole, as one of no kind."""
    place = len(SIGNATURE)
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4].rjust(4, b"\0"))
        end = place + length + 12
        if end > len(png):
            yield b"", b"", png[place:]
            return
        yield png[place + 4 : place + 8], png[place + 8 : end - 4], png[place:end]
        place = end


def _is_transparency(kind: bytes, _content: bytes, whole: bytes) -> bool:
    return kind in _TRANSPARENCY and _is_sound(whole)


def _is_of_use(kind: bytes, content: bytes, whole: bytes) -> bool:
    if kind in _TEXTS:
        keyword = content.partition(b"\0")[0]
        return keyword in _ORIENTATION_KEYWORDS and _is_sound(whole) and _is_short(kind, content)
    return kind in (*_TRANSPARENCY, *_ANIMATION_AND_EXIF) and _is_sound(whole)


def _is_sound(whole: bytes) -> bool:
    """Return whether a chunk has the checksum that it says."""
    return zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")


def _is_short(kind: bytes, content: bytes) -> bool:
    """Return whether a text is short, without unpacking more of it than that."""
    if kind == b"tEXt":
        return len(content) <= MAX_TEXT_BYTES
    packed = content.partition(b"\0")[2]
    if kind == b"iTXt":
        is_packed, packed = packed[:1] == b"\1", packed[2:].partition(b"\0")[2].partition(b"\0")[2]
        if not is_packed:
            return len(packed) <= MAX_TEXT_BYTES
    else:
        packed = packed[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1)) <= MAX_TEXT_BYTES
    except zlib.error:
        return False
