"""What schemathesis cannot know of the API: which bytes are a picture, which texts are read, which faults are none.

Checked with schemathesis 4.32.5, which draws random bytes for files, and counts a number in place of a text as a fault
though every field of a form is text: it cannot judge forms that hold files.
"""

import base64
import re
import struct
import zlib
from typing import Any

import schemathesis

_FILES = ("image", "mask")
_MOST_PICTURES = 1


def _png() -> bytes:
    """Return a white picture of one pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\xff\xff")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Send pictures where a request is meant to be good, and ask for few."""
    if not isinstance(case.body, dict) or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    body = case.body | {  # a new one: other cases have parts of the same
        name: min(case.body[name], _MOST_PICTURES)
        for name in ("n", "candidates", "batch_size", "n_iter")
        if isinstance(case.body.get(name), int)
    }
    if case.path.startswith("/sdapi/"):
        text = base64.b64encode(_png()).decode()
        pictures = {"init_images": [text], "mask": text, "image": text}
        body |= {name: value for name, value in pictures.items() if isinstance(body.get(name), str | list)}
    for name in [name for name in _fields(case) if name in _FILES and name in body]:
        body[name] = [_png() for _ in body[name]] if isinstance(body[name], list) else _png()
    case.body = body
    case._record_starting_state()  # or it counts as bad from now on, since bytes are no text


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out forms in which a text is to be something else, and prompts of nothing that a model reads."""
    if case.meta is None or not isinstance(case.body, dict):
        return True
    if case.meta.generation.mode.is_positive:
        return _is_readable(case.body.get("prompt", "a"))
    fields = _fields(case)
    texts = [name for name, field in fields.items() if field.get("type") == "string" and name not in _FILES]
    return all(isinstance(case.body[name], str) for name in texts if name in case.body)


def _fields(case: Any) -> dict[str, Any]:
    """Return the fields of a form, as they are described."""
    if case.media_type != "multipart/form-data":
        return {}
    content = case.operation.definition.raw["requestBody"]["content"]
    found: dict[str, Any] = content["multipart/form-data"]["schema"]["properties"]
    return found


def _is_readable(prompt: Any) -> bool:
    return not isinstance(prompt, str) or bool(re.search("[0-9A-Za-z]", prompt))
