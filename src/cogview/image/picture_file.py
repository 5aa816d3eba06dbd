"""Picture files with text, seed and settings as metadata. Does not import PyTorch."""

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
    """Encode a picture file.

    Args:
        image: the picture.
        kind: file format.
        text: description.
        facts: plain data that reproduce it with the same weights.
        software: name of the program.
        quality: 0 to 100, of WebP and JPEG; 100 makes WebP lossless.
    """
    data = io.BytesIO()
    if kind == "png":
        # Paths that are not UTF-8 have surrogates; JSON's escapes for them are Python's.
        plain = json.dumps(facts, ensure_ascii=False).encode(errors="backslashreplace").decode()
        info = PngInfo()
        info.add_itxt("Description", text)
        info.add_text("Software", software)
        if facts is not None:
            info.add_itxt(_KEYWORD, plain)
        # Three times as fast as the default strategy, and no larger for pictures with even grounds.
        image.save(data, "PNG", pnginfo=info, compress_type=zlib.Z_RLE)
        return data.getvalue()
    exif = Image.Exif()
    if facts is not None:
        exif[_DESCRIPTION] = json.dumps(facts)  # EXIF text is ASCII
    if kind == "webp":
        image.save(data, "WEBP", quality=quality, lossless=quality == 100, exif=exif)
    else:
        image.save(data, "JPEG", quality=max(quality, 1), exif=exif)
    return data.getvalue()


def read_facts(image: Image.Image) -> dict[str, Any] | None:
    """Read the `facts` of a picture file; None if it has none.

    Args:
        image: from `PIL.Image.open`; it need not be decoded.
    """
    plain = image.info.get(_KEYWORD) if image.format == "PNG" else image.getexif().get(_DESCRIPTION)
    if not isinstance(plain, str):
        return None
    try:
        facts = json.loads(plain)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
