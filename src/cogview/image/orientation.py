"""Which side of a picture is up: told by its file, or by what is kept beside it."""

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
"""What sets a picture upright, by its EXIF orientation; 1 is upright already."""

_NUM_BYTES: Final = {1: 1, 3: 2, 4: 4}  # of the whole numbers among the types of EXIF
# The words of the package exifread, which img2dataset keeps.
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
    """Return the EXIF orientation that a picture's file tells, 1 to 8; None if it tells none that can be read.

    Nothing else of the EXIF is looked at, so whatever is wrong with the rest does not matter.

    Args:
        opened: a picture that has been opened; of a TIFF, not loaded yet, since loading turns it.
    """
    found: object
    try:
        if opened.format == "TIFF":
            found = getattr(opened, "tag_v2", {}).get(ExifTags.Base.Orientation)
        elif (found := _orientation_in(opened.info.get("exif", b""))) is None:
            found = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises nearly anything on EXIF that is none
        return None
    return found if isinstance(found, int) and 1 <= found <= 8 else None


def _orientation_in(exif: bytes) -> int | None:
    """Return what the first list of tags in some EXIF says, None if it says nothing plain.

    Pillow's own reader stops at the first tag that makes no sense, and the orientation may come behind it.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return None

    def number(place: int, num_bytes: int) -> int:
        return int.from_bytes(tiff[place : place + num_bytes], order)

    start, found = number(4, 4), None
    for index in range(number(start, 2)):
        place = start + 2 + 12 * index
        if place + 12 > len(tiff):
            break
        kind, count = number(place + 2, 2), number(place + 4, 4)
        if number(place, 2) == ExifTags.Base.Orientation and count == 1 and kind in _NUM_BYTES:
            found = number(place + 8, _NUM_BYTES[kind])
    return found


def set_upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Return a picture turned and mirrored as its EXIF orientation says; None and 1 leave it alone."""
    turn = _TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def orientation_told(exif: object) -> int | None:
    """Return the EXIF orientation in the field `exif` of a record that img2dataset has written, None if there is none.

    It stores pictures without EXIF, and as they lie in the file, and keeps the EXIF as JSON of tag names and words.

    Args:
        exif: the field's value, JSON in a string or an object.

    Raises:
        ValueError: it tells an orientation in words that are not known.
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
    told = tags.get("Image Orientation", tags.get("Orientation"))
    if told is None:
        return None
    words = " ".join(str(told).lower().split())
    if words in _WORDS:
        return _WORDS[words]
    if words in ("0", "[]", ""):  # cameras write 0 for "not known"
        return None
    if words.isdecimal() and 1 <= int(words) <= 8:
        return int(words)
    raise ValueError(f'"exif" tells the orientation {str(told)[:40]!r}, which is not known')
