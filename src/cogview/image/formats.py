"""Detection of picture formats by file extension and first bytes."""

import re
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

HEAD_BYTES = 1024
"""Size of the head of a file that identifies its format."""

# Pillow supports more, but starts other programs for some (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
AVIF = "AVIF"  # from Pillow 11.3 on, depending on its build

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Extensions of pictures; files with other ones are examined."""

_FURTHER_ENDINGS = (
    *(".jfif", ".jpe", ".jif", ".jfi", ".apng", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".avif", ".avifs"),
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".svg", ".svgz", ".psd", ".ico"),
    *(".tga", ".qoi", ".dds", ".exr", ".hdr", ".eps"),
)
# Start like a TIFF whose first picture is a small preview.
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
"""Kind of a file; any other string is the reason why a picture is not supported."""


def format_of(head: bytes) -> str | None:
    """Return the picture format of a file; None if unknown.

    Args:
        head: its first `HEAD_BYTES`, fewer if it is shorter.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and head[14:18] and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        # Main brand, version, compatible brands.
        brands = head[8 : min(int.from_bytes(head[:4], "big"), len(head))]
        if b"avif" in brands or b"avis" in brands:
            return AVIF
        return "HEIF" if brands.startswith(_HEIF_BRANDS) else None
    if _PPM.match(head):
        return "PPM"
    return "SVG" if _SVG.match(head.removeprefix(b"\xef\xbb\xbf")) else None


def unsupported_format(name: str) -> str:
    """Return the reason why a picture of a format cannot be used, and what to do."""
    return f"a picture in {name}, a format that is not read: make a PNG or JPEG of it"


def verdict_on(ending: str, head: Callable[[], bytes]) -> Verdict:
    """Classify a file by its extension if that is sufficient, otherwise by its first bytes.

    Args:
        ending: its extension with the dot, in any case.
        head: returns its first `HEAD_BYTES`; called only if needed.

    Returns:
        "picture", "nothing", or the reason why a picture is not supported.
    """
    ending = ending.lower()
    if ending in IMAGE_ENDINGS:
        return "picture"
    if ending in _CAMERA_ENDINGS:
        return unsupported_format(f"a camera's own format ({ending})")
    file_format = format_of(head())
    if file_format in (*FORMATS, AVIF):
        return "picture"
    if file_format is not None:
        return unsupported_format(file_format)
    if ending in _FURTHER_ENDINGS:
        return f"named {ending} like a picture, and its first bytes are those of none that is read"
    return "nothing"


def looks_like_picture(ending: str) -> bool:
    """Return whether an extension, with the dot, is one of any picture format."""
    return ending.lower() in (*IMAGE_ENDINGS, *_FURTHER_ENDINGS, *_CAMERA_ENDINGS)
