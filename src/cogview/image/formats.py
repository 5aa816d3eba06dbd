"""What kind of picture a file is: told by its first bytes, since names say little."""

import re
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

HEAD_BYTES = 1024
"""How much of a file tells what it is."""

# Pillow knows more, and for some (EPS) it starts other programs, whatever the file's name.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
AVIF = "AVIF"  # Pillow reads it from version 11.3 on, if it was built so

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings under which a file is taken for a picture unseen; others are looked at."""

_FURTHER_ENDINGS = (
    *(".jfif", ".jpe", ".jif", ".jfi", ".apng", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".avif", ".avifs"),
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".svg", ".svgz", ".psd", ".ico"),
    *(".tga", ".qoi", ".dds", ".exr", ".hdr", ".eps"),
)
# They begin like a TIFF, whose first picture is a small preview.
_CAMERA_ENDINGS = (
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".sr2", ".orf", ".rw2", ".pef", ".srw", ".raf"),
)

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"qoif", "QOI"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance"),
    (b"%!PS-Adobe", "PostScript"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_PPM = re.compile(rb"P[1-6][ \t\r\n]+(#|\d)")
_SVG = re.compile(rb"(?:\s|<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE\s+svg[^>]*>)*<(\w+:)?svg[\s>/]", re.DOTALL)

Verdict: TypeAlias = Literal["picture", "nothing"] | str
"""What a file is; anything else than these two is the reason for which a picture is not taken."""


def format_of(head: bytes) -> str | None:
    """Return what format of pictures a file is of; None if it is none that is known here.

    Args:
        head: its first `HEAD_BYTES`, or fewer if it is shorter.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and head[14:18] and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        # The brands: the main one, a number, those that it goes with.
        brands = head[8 : min(int.from_bytes(head[:4], "big"), len(head))]
        if b"avif" in brands or b"avis" in brands:
            return AVIF
        return "HEIF" if brands.startswith(_HEIF_BRANDS) else None
    if _PPM.match(head):
        return "PPM"
    return "SVG" if _SVG.match(head.removeprefix(b"\xef\xbb\xbf")) else None


def not_read(name: str) -> str:
    """Return why a picture of a format cannot be used, and what to do."""
    return f"a picture in {name}, a format that is not read: make a PNG or JPEG of it"


def verdict_on(ending: str, head: Callable[[], bytes]) -> Verdict:
    """Say whether a file is a picture: by its ending where that is enough, else by its first bytes.

    Args:
        ending: of its name, with the dot; any case.
        head: returns its first `HEAD_BYTES`; called only if they matter.

    Returns:
        "picture" or "nothing", or else why it looks like a picture and is not taken.
    """
    ending = ending.lower()
    if ending in IMAGE_ENDINGS:
        return "picture"
    if ending in _CAMERA_ENDINGS:
        return not_read(f"a camera's own format ({ending})")
    found = format_of(head())
    if found in (*FORMATS, AVIF):
        return "picture"
    if found is not None:
        return not_read(found)
    if ending in _FURTHER_ENDINGS:
        return f"named {ending} like a picture, and its first bytes are those of none that is read"
    return "nothing"


def looks_like_picture(ending: str) -> bool:
    """Return whether a name's ending, with the dot, promises a picture of any kind."""
    return ending.lower() in (*IMAGE_ENDINGS, *_FURTHER_ENDINGS, *_CAMERA_ENDINGS)
