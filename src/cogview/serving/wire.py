"""What goes over the wire: errors in OpenAI's form, bodies within their limits, and events."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageChops
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cogview.image.formats import FORMATS
from cogview.image.picture_reading import UnusableImage, read_image
from cogview.serving.messages import Pixels

Body = TypeVar("Body", bound=BaseModel)

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


class WireError(Exception):
    """A request that is not carried out.

    Args:
        status: of HTTP.
        message: one line, with what to do.
        param: which part of the request is to blame.
        code: a word for programs.
        retry_seconds: when to ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_seconds = status, param, code, retry_seconds

    @property
    def content(self) -> dict[str, Any]:
        """Return it as OpenAI's clients read it."""
        kind = _KINDS.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self, path: str = "") -> Response:
        """Return the answer to a request for a path: clients of Automatic1111's read `detail`."""
        headers = {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}
        detail = {"detail": str(self)} if path.startswith("/sdapi/") else {}
        return JSONResponse(self.content | detail, self.status, headers)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A picture that was uploaded.

    Args:
        pixels: RGB, set upright; a mask has its alpha, or else its lightness, as L.
        data: as it came.
    """

    pixels: Pixels
    data: bytes


def parsed(model: type[Body], data: Mapping[str, Any], *, is_form: bool = False) -> Body:
    """Return a request's fields as what they are.

    Args:
        model: of the fields.
        data: as they came.
        is_form: whether numbers came as text.

    Raises:
        WireError: one of them is impossible.
    """
    try:
        return model.model_validate(dict(data), strict=not is_form)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        raise WireError(
            400, f"{name}: {message}" if name else message, param=name, code="invalid_value"
        ) from error


async def json_body(request: Request) -> dict[str, Any]:
    """Return the JSON object that was sent.

    Raises:
        WireError: it is none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WireError(415, "send application/json", code="unsupported_media_type")
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise WireError(400, "the body is no JSON", code="invalid_json") from error
    if not isinstance(data, dict):
        raise WireError(400, "the body must be a JSON object", code="invalid_json")
    return data


async def form_body(request: Request, max_files: int, max_bytes: int) -> FormData:
    """Return the multipart form that was sent; its files stay in memory.

    Raises:
        WireError: it is none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise WireError(415, "send multipart/form-data", code="unsupported_media_type")
    body = await request.body()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, chunks(), max_files=max_files, max_fields=64, max_part_size=max_bytes
    )
    parser.spool_max_size = max_bytes
    try:
        return await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = getattr(error, "message", "it is damaged")
        raise WireError(400, f"the form cannot be read: {message}", code="invalid_form") from error


def scalars(form: FormData) -> dict[str, Any]:
    """Return the fields of a form that are text; those that are empty say nothing."""
    return {name: value for name, value in form.items() if isinstance(value, str) and value != ""}


async def uploaded(value: object, name: str, max_pixels: int, *, is_mask: bool = False) -> Upload:
    """Return a picture of a form.

    Raises:
        WireError: it is no picture that is taken.
    """
    if not isinstance(value, UploadFile):
        raise WireError(400, f"{name} must be a file", param=name, code="invalid_image")
    data = await value.read()
    return await asyncio.to_thread(decoded, data, name, max_pixels, "transparent" if is_mask else None)


def from_base64(text: str, name: str) -> bytes:
    """Return bytes that came as base64, perhaps as a data url.

    Raises:
        WireError: it is none.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError(400, f"{name} is no base64", param=name, code="invalid_image") from error


def decoded(
    data: bytes, name: str, max_pixels: int, mask: Literal["transparent", "opaque"] | None = None
) -> Upload:
    """Return a picture of its file; how large it is is looked at before it is decoded.

    Args:
        data: the file.
        name: of the field, for errors.
        max_pixels: that it may have.
        mask: what of a mask is drawn anew, if it is one and has transparency.

    Raises:
        WireError: it is no picture that is taken.
    """
    try:
        if mask is not None:
            return Upload(pixels=Pixels.of(_as_mask(data, max_pixels, mask)), data=data)
        return Upload(pixels=Pixels.of(read_image(BytesIO(data), max_pixels)), data=data)
    except UnusableImage as error:
        message = str(error).removeprefix("the picture: ")
        raise WireError(400, f"{name}: {message}", param=name, code="invalid_image") from error


def _as_mask(data: bytes, max_pixels: int, drawn: Literal["transparent", "opaque"]) -> Image.Image:
    """Return what is to be drawn anew as white: what is transparent, or opaque, or else what is light.

    Raises:
        UnusableImage: it is no picture that can be read.
    """
    lightness = read_image(BytesIO(data), max_pixels).convert("L")  # which looks at the size first
    with Image.open(BytesIO(data), formats=FORMATS) as opened:
        if opened.has_transparency_data:
            alpha = opened.convert("RGBA").getchannel("A")
            if np.asarray(alpha).min() < 255:
                return ImageChops.invert(alpha) if drawn == "transparent" else alpha
    return lightness


def sse(data: Mapping[str, Any], *, event: str | None = None, number: str | None = None) -> bytes:
    """Return an event of a stream."""
    lines = [] if event is None else [f"event: {event}"]
    if number is not None:
        lines.append(f"id: {number}")
    lines.append(f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}")
    return ("\n".join(lines) + "\n\n").encode(errors="replace")


def sse_comment(text: str) -> bytes:
    """Return a line of a stream that clients skip."""
    return f": {text}\n\n".encode()
