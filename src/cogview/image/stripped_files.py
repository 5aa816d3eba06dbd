"""Removal of optional parts from PNG and JPEG files whose texts, profiles or comments make decoding fail."""

import struct
import zlib
from collections.abc import Callable, Iterator

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
MAX_TEXT_BYTES = 2**20
"""Longest decompressed text to keep; Pillow refuses pictures with longer ones."""

_TRANSPARENCY = (b"tRNS",)
_ANIMATION_AND_EXIF = (b"acTL", b"fcTL", b"fdAT", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Texts that may contain the orientation.
_ORIENTATION_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")

# JPEG segments of colour space, EXIF and Adobe's colour transform, with minimum lengths.
_JFIF, _EXIF, _ADOBE = 0xE0, 0xE1, 0xEE
_LEAST_BYTES = {_JFIF: 14, _ADOBE: 12}
_COMMENT, _SCAN = 0xFE, 0xDA


def stripped_versions(data: bytes) -> Iterator[bytes]:
    """Yield a PNG or JPEG with fewer and fewer optional parts; nothing for other files.

    The first version keeps those with the orientation, the second only what the pixels need.

    Args:
        data: content of any file.
    """
    versions = (
        _stripped_pngs(data)
        if data.startswith(PNG)
        else _stripped_jpegs(data)
        if data.startswith(JPEG)
        else ()
    )
    before = data
    for version in versions:
        if version != before:
            yield version
            before = version


def _stripped_pngs(png: bytes) -> Iterator[bytes]:
    is_kept: Callable[[bytes, bytes, bytes], bool]
    for is_kept in (_has_orientation_or_alpha, _is_transparency):
        parts = [PNG]
        for kind, content, whole in _chunks(png):
            is_optional = kind and kind[0] & 0x20  # lower case
            if not is_optional or is_kept(kind, content, whole):
                parts.append(whole)
        yield b"".join(parts)


def _stripped_jpegs(jpeg: bytes) -> Iterator[bytes]:
    for kept_markers in ((_JFIF, _EXIF, _ADOBE), (_JFIF, _ADOBE)):
        parts, place = [JPEG], len(JPEG)
        while jpeg[place : place + 1] == b"\xff" and len(jpeg) >= place + 4:
            marker, length = jpeg[place + 1], int.from_bytes(jpeg[place + 2 : place + 4], "big")
            if marker == 0xFF:  # a fill byte
                place += 1
                continue
            if marker == _SCAN or not 0xC0 <= marker <= _COMMENT:
                break
            is_extra = marker & 0xF0 == 0xE0 or marker == _COMMENT
            is_kept = marker in kept_markers and length - 2 >= _LEAST_BYTES.get(marker, 0)
            if is_kept or not is_extra:
                parts.append(jpeg[place : place + 2 + length])
            place += 2 + length
        yield b"".join([*parts, jpeg[place:]])


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield kind, content and all bytes of each chunk; a truncated rest has an empty kind."""
    place = len(PNG)
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4].rjust(4, b"\0"))
        end = place + length + 12
        if end > len(png):
            yield b"", b"", png[place:]
            return
        yield png[place + 4 : place + 8], png[place + 8 : end - 4], png[place:end]
        place = end


def _is_transparency(kind: bytes, _content: bytes, whole: bytes) -> bool:
    return kind in _TRANSPARENCY and _has_valid_checksum(whole)


def _has_orientation_or_alpha(kind: bytes, content: bytes, whole: bytes) -> bool:
    if kind in _TEXTS:
        keyword = content.partition(b"\0")[0]
        return keyword in _ORIENTATION_KEYWORDS and _has_valid_checksum(whole) and _is_short(kind, content)
    return kind in (*_TRANSPARENCY, *_ANIMATION_AND_EXIF) and _has_valid_checksum(whole)


def _has_valid_checksum(whole: bytes) -> bool:
    """Return whether a chunk's checksum is correct."""
    return zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")


def _is_short(kind: bytes, content: bytes) -> bool:
    """Return whether a text is at most `MAX_TEXT_BYTES` long, without decompressing more."""
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
