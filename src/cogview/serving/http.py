"""HTTP helpers: errors in OpenAI's format, size-limited bodies, server-sent events."""

import json
import logging
from collections.abc import Iterable, Mapping
from io import BufferedRandom, BytesIO
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cogview.errors import printable
from cogview.plain_json import parse_json
from cogview.serving.schemas import TEXT

MAX_JSON_BYTES = 2**20
"""Limit of a JSON body; 32,000 characters that are all escaped take 384,000 bytes."""

MAX_JSON_VALUES = 100_000
"""Limit of a JSON body; a parsed value takes up to 100 bytes, its JSON as few as two."""

MAX_TEXT_FIELDS = 64
"""Most text fields of a form."""

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # form errors go to the client

Body = TypeVar("Body", bound=BaseModel)

_ERROR_TYPES = {
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


class ApiError(Exception):
    """Error response to a request.

    Args:
        status: HTTP status.
        message: one line: what was wrong and what to do.
        param: name of the invalid field.
        code: error code for programs.
        retry_seconds: when to retry.
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
        super().__init__(printable(message).encode(errors="replace").decode())
        self.status, self.param, self.code, self.retry_seconds = status, param, code, retry_seconds

    @property
    def content(self) -> dict[str, Any]:
        """Return the body in OpenAI's format."""
        error_type = _ERROR_TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": error_type, "param": self.param, "code": self.code}}

    def response(self, path: str = "") -> Response:
        """Return the response; clients of Automatic1111's API read `detail`."""
        headers = {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        detail = {"detail": str(self)} if path.startswith("/sdapi/") else {}
        return JSONResponse(self.content | detail, self.status, headers)


def parse_fields(model: type[Body], data: Mapping[str, Any], *, is_form: bool = False) -> Body:
    """Validate a request's fields.

    Args:
        model: schema of the fields.
        data: raw values.
        is_form: whether numbers may be text.

    Raises:
        ApiError: a field is invalid.
    """
    fields = dict(data)
    for name in model.model_fields:
        value = fields.get(name)
        if isinstance(value, float) and value.is_integer():
            fields[name] = int(value)  # JSON does not tell 1.0 from 1
        if isinstance(value, str) and not _is_encodable(value):
            raise ApiError(
                400,
                f"{name}: it contains invalid UTF-8 or a lone surrogate: remove it",
                param=name,
                code="invalid_value",
            )
    try:
        return model.model_validate(fields, strict=not is_form, context=TEXT if is_form else None)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("missing", "value_error"):  # messages of our validators have the value
            message += f", got {_describe_value(first['input'])}"
        raise ApiError(
            400, f"{param}: {message}" if param else message, param=param, code="invalid_value"
        ) from error


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe_value(value: object) -> str:
    """Describe a value for an error message, in at most 60 characters."""
    if isinstance(value, str) and len(value) > 60:
        return f"{len(value):,} characters"
    return "a list or an object" if isinstance(value, list | dict) else f"{value!r:.60}"


def query_fields(request: Request, model: type[Body]) -> Body:
    """Validate the parameters of a query.

    Raises:
        ApiError: a parameter is invalid or repeated.
    """
    return _text_fields(request.query_params.multi_items(), model)


def header_fields(request: Request, model: type[Body]) -> Body:
    """Validate the headers whose names are aliases of the model's fields.

    Raises:
        ApiError: a header is invalid or repeated.
    """
    return _text_fields([(name.lower(), value) for name, value in request.headers.items()], model)


def path_fields(request: Request, model: type[Body]) -> Body:
    """Validate the parameters of a path.

    Raises:
        ApiError: they are invalid: there is no such resource.
    """
    try:
        return model.model_validate(request.path_params)
    except ValidationError as error:
        raise ApiError(404, "there is nothing here", code="http_404") from error


def _text_fields(items: Iterable[tuple[str, str]], model: type[Body]) -> Body:
    values: dict[str, str] = {}
    names = {field.alias or name for name, field in model.model_fields.items()}
    for name, value in items:
        if name not in names:
            continue
        if name in values:
            raise ApiError(400, f"{name} was sent twice: send it once", param=name, code="invalid_value")
        values[name] = value
    return parse_fields(model, values, is_form=True)


def _check_content_type(request: Request, wanted: str) -> None:
    """Check the media type of a body.

    Raises:
        ApiError: it is another one.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        raise ApiError(415, f"send {wanted}", code="unsupported_media_type")


async def json_body(request: Request, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        request: with the body.
        max_bytes: limit of the body.

    Raises:
        ApiError: the body is not a JSON object, or is too large.
    """
    _check_content_type(request, "application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise ApiError(413, f"JSON may have {max_bytes:,} bytes: send less", code="request_too_large")
    if sum(map(body.count, b",[{")) > MAX_JSON_VALUES:
        raise ApiError(400, f"the body may have {MAX_JSON_VALUES:,} values", code="invalid_json")
    try:
        data = parse_json(bytes(body), max_bytes, is_strict=True)
    except ValueError as error:
        raise ApiError(
            400, f"the body is not valid JSON: {printable(str(error))}", code="invalid_json"
        ) from error
    if not isinstance(data, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return data


async def form_body(request: Request, max_files: int, max_bytes: int) -> FormData:
    """Read a multipart form, with its files in memory.

    Args:
        request: with the body.
        max_files: most files of the form.
        max_bytes: limit of the body.

    Raises:
        ApiError: the form is invalid, truncated or too large.
    """
    _check_content_type(request, "multipart/form-data")
    _, options = parse_options_header(request.headers["content-type"])
    form = _FormParts(max_files)
    num_bytes = 0
    try:
        parser = FormParser(
            "multipart/form-data",
            form.take_text,
            form.take_file,
            form.end,
            boundary=options.get(b"boundary"),
            config={"MAX_MEMORY_FILE_SIZE": max_bytes, "UPLOAD_ERROR_ON_BAD_CTE": True},
        )
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise ApiError(413, f"a form may have {max_bytes:,} bytes", code="request_too_large")
            parser.write(chunk)
    except (FormParserError, ValueError) as error:
        raise ApiError(
            400, f"the form cannot be read: {printable(str(error))}", code="invalid_form"
        ) from error
    if not form.is_whole:
        raise ApiError(400, "the form is cut off: its last boundary is missing", code="invalid_form")
    return FormData(form.items)


class _FormParts:
    """Parts of a form, collected by the parser's callbacks."""

    def __init__(self, max_files: int) -> None:
        self._max_files = max_files
        self._num_texts = self._num_files = 0
        self.items: list[tuple[str, str | UploadFile]] = []
        self.is_whole = False

    def take_text(self, field: Field) -> None:
        """Add a text part.

        Raises:
            ValueError: there are too many parts.
        """
        self._num_texts += 1
        if self._num_texts > MAX_TEXT_FIELDS:
            raise ValueError(f"it has more than {MAX_TEXT_FIELDS} fields")
        name = _decode(field.field_name)
        if field.content_type is None or field.content_type.startswith("text/"):
            self.items.append((name, _decode(field.value)))
        else:  # a file without a file name
            self._take_file(name, BytesIO(field.value or b""))

    def take_file(self, file: File) -> None:
        """Add a file part.

        Raises:
            ValueError: there are too many files.
        """
        file.file_object.seek(0)
        self._take_file(_decode(file.field_name), file.file_object)

    def _take_file(self, name: str, file: BytesIO | BufferedRandom) -> None:
        self._num_files += 1
        if self._num_files > self._max_files:
            raise ValueError(f"it has more than {self._max_files} files")
        self.items.append((name, UploadFile(file)))

    def end(self) -> None:
        """Note that the form is complete."""
        self.is_whole = True


def _decode(data: bytes | None) -> str:
    """Decode UTF-8, with invalid bytes as surrogates, which `parse_fields` rejects."""
    return (data or b"").decode(errors="surrogateescape")


def form_fields(form: FormData, model: type[Body]) -> Body:
    """Validate the text fields of a form; empty ones count as missing.

    Raises:
        ApiError: a field is invalid, repeated or a file.
    """
    for name in model.model_fields:
        if any(isinstance(value, UploadFile) for value in form.getlist(name)):
            raise ApiError(400, f"{name} must be text, not a file", param=name, code="invalid_value")
    texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str) and value != ""]
    return _text_fields(texts, model)


def sse_event(data: Mapping[str, Any], *, event: str | None = None, number: str | None = None) -> bytes:
    """Encode a server-sent event."""
    lines = [] if event is None else [f"event: {event}"]
    if number is not None:
        lines.append(f"id: {number}")
    lines.append(f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}")
    return ("\n".join(lines) + "\n\n").encode(errors="replace")


def sse_comment(text: str) -> bytes:
    """Encode a comment, which clients of a stream ignore."""
    return f": {text}\n\n".encode()
