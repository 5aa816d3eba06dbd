"""What schemathesis cannot know of the API: which bytes are a picture, which texts are read, which faults are none.

Checked with schemathesis 4.32.5, which draws random bytes for files, and counts a number in place of a text as a fault
though every field of a form is text: it cannot judge forms that hold files.
"""

import re
import struct
import zlib
from typing import Any

import schemathesis

_FILES = ("image", "mask")


def _png() -> bytes:
    """Return a white picture of one pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\xff\xff")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Send pictures where a request is meant to be good."""
    if _is_form(case) and case.meta is not None and case.meta.generation.mode.is_positive:
        files = {name: value for name, value in case.body.items() if name in _FILES}
        case.body = case.body | {  # a new one: other cases have parts of the same
            name: [_png() for _ in value] if isinstance(value, list) else _png() for name, value in files.items()
        }
        case._record_starting_state()  # or it counts as bad from now on, since bytes are no text


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out forms in which a text is to be something else, and prompts of nothing that a model reads."""
    if isinstance(case.body, dict) and not _is_readable(case.body.get("prompt", "a")):
        return case.meta is None or not case.meta.generation.mode.is_positive
    if not _is_form(case) or case.meta is None or case.meta.generation.mode.is_positive:
        return True
    content = case.operation.definition.raw["requestBody"]["content"]["multipart/form-data"]
    fields = content["schema"]["properties"]
    texts = [name for name, field in fields.items() if field.get("type") == "string" and name not in _FILES]
    return all(isinstance(case.body[name], str) for name in texts if name in case.body)


def _is_readable(prompt: Any) -> bool:
    return not isinstance(prompt, str) or bool(re.search("[0-9A-Za-z]", prompt))


def _is_form(case: Any) -> bool:
    return case.media_type == "multipart/form-data" and isinstance(case.body, dict)
