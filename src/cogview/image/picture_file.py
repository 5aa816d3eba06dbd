"""Picture files that say what drew them: text, seed and settings stand in the file. PyTorch is not needed."""

import io
import json
import zlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from PIL import Image
from PIL.PngImagePlugin import PngInfo

FileFormat: TypeAlias = Literal["png", "webp", "jpeg"]
_KEYWORD = "cogview"
_DESCRIPTION = 0x010E  # of Exif


def picture_file(
    image: Image.Image,
    kind: FileFormat = "png",
    *,
    text: str = "",
    facts: Mapping[str, Any] | None = None,
    software: str = "cogview",
    quality: int = 90,
) -> bytes:
    """Return a picture as a file.

    Args:
        image: the picture.
        kind: of file.
        text: what it shows.
        facts: plain data that draw it again from the same weights.
        software: what has written it.
        quality: 0 to 100, of WebP and JPEG; with 100, WebP loses nothing.
    """
    data = io.BytesIO()
    # A path that is not UTF-8 has half surrogates in Python; JSON's escape for them is Python's.
    plain = json.dumps(facts, ensure_ascii=False).encode(errors="backslashreplace").decode()
    if kind == "png":
        info = PngInfo()
        info.add_itxt("Description", text)
        info.add_text("Software", software)
        if facts is not None:
            info.add_itxt(_KEYWORD, plain)
        # A third of the usual strategy's time, and no more bytes, for pictures with even grounds.
        image.save(data, "PNG", pnginfo=info, compress_type=zlib.Z_RLE)
        return data.getvalue()
    exif = Image.Exif()
    if facts is not None:
        exif[_DESCRIPTION] = plain
    if kind == "webp":
        image.save(data, "WEBP", quality=quality, lossless=quality == 100, exif=exif)
    else:
        image.save(data, "JPEG", quality=max(quality, 1), exif=exif)
    return data.getvalue()


def read_facts(image: Image.Image) -> dict[str, Any] | None:
    """Return what a picture's file says of how it was drawn; None if it is no picture of ours.

    Args:
        image: as `PIL.Image.open` gives it; it need not be decoded.
    """
    plain = image.info.get(_KEYWORD) if image.format == "PNG" else image.getexif().get(_DESCRIPTION)
    if not isinstance(plain, str):
        return None
    try:
        facts = json.loads(plain)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
