"""What goes over the wire: errors in OpenAI's form, bodies within their limits, and events."""

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
"""Of a body: 32,000 characters that are all escaped have 384,000."""

MAX_JSON_VALUES = 100_000
"""Each takes up to a hundred bytes, where its JSON has two."""

MAX_TEXTS = 64
"""Fields of a form that are text."""

logging.getLogger("python_multipart").setLevel(
    logging.CRITICAL
)  # what is wrong with a form is told its sender

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
        super().__init__(printable(message).encode(errors="replace").decode())
        self.status, self.param, self.code, self.retry_seconds = status, param, code, retry_seconds

    @property
    def content(self) -> dict[str, Any]:
        """Return it as OpenAI's clients read it."""
        kind = _KINDS.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self, path: str = "") -> Response:
        """Return the answer to a request for a path: clients of Automatic1111's read `detail`."""
        headers = {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        detail = {"detail": str(self)} if path.startswith("/sdapi/") else {}
        return JSONResponse(self.content | detail, self.status, headers)


def parsed(model: type[Body], data: Mapping[str, Any], *, is_form: bool = False) -> Body:
    """Return a request's fields as what they are.

    Args:
        model: of the fields.
        data: as they came.
        is_form: whether numbers came as text.

    Raises:
        WireError: one of them is impossible.
    """
    given = dict(data)
    for name in model.model_fields:
        value = given.get(name)
        if isinstance(value, float) and value.is_integer():
            given[name] = int(value)  # JSON has but one kind of number
        if isinstance(value, str) and not _is_encodable(value):
            raise WireError(
                400,
                f"{name}: it holds bytes that are no UTF-8, or half a character (a lone surrogate): leave those out",
                param=name,
                code="invalid_value",
            )
    try:
        return model.model_validate(given, strict=not is_form, context=TEXT if is_form else None)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("missing", "value_error"):  # ours say themselves what came
            message += f", got {_shown(first['input'])}"
        raise WireError(
            400, f"{param}: {message}" if param else message, param=param, code="invalid_value"
        ) from error


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """Return what was sent as a line tells it: long ones by their length."""
    if isinstance(value, str) and len(value) > 60:
        return f"{len(value):,} characters"
    return "a list or an object" if isinstance(value, list | dict) else f"{value!r:.60}"


def query_fields(request: Request, model: type[Body]) -> Body:
    """Return the parameters of a request's query.

    Raises:
        WireError: one of them is impossible, or stands twice.
    """
    return _text_fields(request.query_params.multi_items(), model)


def header_fields(request: Request, model: type[Body]) -> Body:
    """Return headers that mean something for a request; a field's alias is a header's name.

    Raises:
        WireError: one of them is impossible, or stands twice.
    """
    return _text_fields([(name.lower(), value) for name, value in request.headers.items()], model)


def path_fields(request: Request, model: type[Body]) -> Body:
    """Return the parameters of a request's path.

    Raises:
        WireError: there is nothing of that name.
    """
    try:
        return model.model_validate(request.path_params)
    except ValidationError as error:
        raise WireError(404, "there is nothing here", code="http_404") from error


def _text_fields(items: Iterable[tuple[str, str]], model: type[Body]) -> Body:
    found: dict[str, str] = {}
    names = {field.alias or name for name, field in model.model_fields.items()}
    for name, value in items:
        if name not in names:
            continue
        if name in found:
            raise WireError(400, f"{name} was sent twice: send it once", param=name, code="invalid_value")
        found[name] = value
    return parsed(model, found, is_form=True)


def _has_type(request: Request, wanted: str) -> None:
    """Refuse a body of another kind.

    Raises:
        WireError: it is one.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        raise WireError(415, f"send {wanted}", code="unsupported_media_type")


async def json_body(request: Request, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object that was sent.

    Args:
        request: with a body.
        max_bytes: of it.

    Raises:
        WireError: it is none.
    """
    _has_type(request, "application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise WireError(413, f"JSON may have {max_bytes:,} bytes: send less", code="request_too_large")
    if sum(map(body.count, b",[{")) > MAX_JSON_VALUES:
        raise WireError(400, f"the body may have {MAX_JSON_VALUES:,} values", code="invalid_json")
    try:
        data = parse_json(bytes(body), max_bytes, is_strict=True)
    except ValueError as error:
        raise WireError(400, f"the body is no JSON: {printable(str(error))}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise WireError(400, "the body must be a JSON object", code="invalid_json")
    return data


async def form_body(request: Request, max_files: int, max_bytes: int) -> FormData:
    """Return the multipart form that was sent; its files stay in memory.

    Args:
        request: with a body.
        max_files: that it may have.
        max_bytes: of the body.

    Raises:
        WireError: it is none, or is cut off.
    """
    _has_type(request, "multipart/form-data")
    _, options = parse_options_header(request.headers["content-type"])
    form = _Form(max_files)
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
                raise WireError(413, f"a form may have {max_bytes:,} bytes", code="request_too_large")
            parser.write(chunk)
    except (FormParserError, ValueError) as error:
        raise WireError(
            400, f"the form cannot be read: {printable(str(error))}", code="invalid_form"
        ) from error
    if not form.is_whole:
        raise WireError(400, "the form is cut off: its last boundary is missing", code="invalid_form")
    return FormData(form.items)


class _Form:
    """Takes the parts of a form as they come.

    Args:
        max_files: that it may have.
    """

    def __init__(self, max_files: int) -> None:
        self._max_files = max_files
        self._num_texts = self._num_files = 0
        self.items: list[tuple[str, str | UploadFile]] = []
        self.is_whole = False

    def take_text(self, field: Field) -> None:
        """Take a part that is text.

        Raises:
            ValueError: it is none, or there are too many.
        """
        self._num_texts += 1
        if self._num_texts > MAX_TEXTS:
            raise ValueError(f"it has more than {MAX_TEXTS} fields")
        name = _text(field.field_name)
        if field.content_type is None or field.content_type.startswith("text/"):
            self.items.append((name, _text(field.value)))
        else:  # files need not have names
            self._take_file(name, BytesIO(field.value or b""))

    def take_file(self, file: File) -> None:
        """Take a part that is a file.

        Raises:
            ValueError: there are too many.
        """
        file.file_object.seek(0)
        self._take_file(_text(file.field_name), file.file_object)

    def _take_file(self, name: str, file: BytesIO | BufferedRandom) -> None:
        self._num_files += 1
        if self._num_files > self._max_files:
            raise ValueError(f"it has more than {self._max_files} files")
        self.items.append((name, UploadFile(file)))

    def end(self) -> None:
        """Take its end."""
        self.is_whole = True


def _text(data: bytes | None) -> str:
    """Return what is to be UTF-8; what is not stays visible, and is refused in fields that mean something."""
    return (data or b"").decode(errors="surrogateescape")


def form_fields(form: FormData, model: type[Body]) -> Body:
    """Return the fields of a form that are text; those that are empty say nothing.

    Raises:
        WireError: one of them is impossible, stands twice or is a file.
    """
    for name in model.model_fields:
        if any(isinstance(value, UploadFile) for value in form.getlist(name)):
            raise WireError(400, f"{name} must be text, not a file", param=name, code="invalid_value")
    texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str) and value != ""]
    return _text_fields(texts, model)


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
