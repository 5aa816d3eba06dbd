"""EXIF orientation of pictures, from their files or from records of img2dataset."""

import json
from typing import Any, Final, Literal

from PIL import ExifTags, Image

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition to upright by EXIF orientation; 1 is upright."""

_NUM_BYTES: Final = {1: 1, 3: 2, 4: 4}  # of EXIF's integer types
# Words of the package exifread, which img2dataset uses.
_WORDS: Final = {
    "horizontal (normal)": 1,
    "mirrored horizontal": 2,
    "rotated 180": 3,
    "mirrored vertical": 4,
    "mirrored horizontal then rotated 90 ccw": 5,
    "rotated 90 cw": 6,
    "mirrored horizontal then rotated 90 cw": 7,
    "rotated 90 ccw": 8,
}


def orientation_of(opened: Image.Image) -> int | None:
    """Return the EXIF orientation of a picture, 1 to 8; None if missing or unreadable.

    Errors in the rest of the EXIF are ignored.

    Args:
        opened: an opened picture; a TIFF must not be loaded yet, since loading rotates it.
    """
    orientation: object
    try:
        if opened.format == "TIFF":
            orientation = getattr(opened, "tag_v2", {}).get(ExifTags.Base.Orientation)
        elif (orientation := _orientation_in(opened.info.get("exif", b""))) is None:
            orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises nearly anything on invalid EXIF
        return None
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else None


def _orientation_in(exif: bytes) -> int | None:
    """Return the orientation in the first list of tags of EXIF data; None if there is none.

    Pillow's reader stops at the first invalid tag, and the orientation may follow it.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return None

    def number(place: int, num_bytes: int) -> int:
        return int.from_bytes(tiff[place : place + num_bytes], order)

    start, orientation = number(4, 4), None
    for index in range(number(start, 2)):
        place = start + 2 + 12 * index
        if place + 12 > len(tiff):
            break
        kind, count = number(place + 2, 2), number(place + 4, 4)
        if number(place, 2) == ExifTags.Base.Orientation and count == 1 and kind in _NUM_BYTES:
            orientation = number(place + 8, _NUM_BYTES[kind])
    return orientation


def set_upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Rotate and mirror a picture by its EXIF orientation; None and 1 leave it unchanged."""
    turn = _TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def orientation_told(exif: object) -> int | None:
    """Return the EXIF orientation in the field `exif` of a record of img2dataset; None if there is none.

    img2dataset stores pictures unrotated and without EXIF, and the EXIF as JSON of tag names and words.

    Args:
        exif: the field's value, JSON in a string or an object.

    Raises:
        ValueError: the orientation is unknown.
    """
    tags: Any = exif
    if isinstance(exif, str):
        if "Orientation" not in exif:
            return None
        try:
            tags = json.loads(exif)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'"exif" cannot be read ({error})') from error
    if not isinstance(tags, dict):
        return None
    value = tags.get("Image Orientation", tags.get("Orientation"))
    if value is None:
        return None
    words = " ".join(str(value).lower().split())
    if words in _WORDS:
        return _WORDS[words]
    if words in ("0", "[]", ""):  # 0 means unknown
        return None
    if words.isdecimal() and 1 <= int(words) <= 8:
        return int(words)
    raise ValueError(f'"exif" has the unknown orientation {str(value)[:40]!r}')
