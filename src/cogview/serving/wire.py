"""What goes over the wire: errors in OpenAI's form, fields of requests, and events."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cogview.errors import printable
from cogview.serving.schemas import TEXT

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
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        raise WireError(
            400, f"{param}: {message}" if param else message, param=param, code="invalid_value"
        ) from error


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def query_fields(request: Request, model: type[Body]) -> Body:
    """Return the parameters of a request's query.

    Raises:
        WireError: one of them is impossible, or stands twice.
    """
    return text_fields(request.query_params.multi_items(), model)


def header_fields(request: Request, model: type[Body]) -> Body:
    """Return headers that mean something for a request; a field's alias is a header's name.

    Raises:
        WireError: one of them is impossible, or stands twice.
    """
    return text_fields([(name.lower(), value) for name, value in request.headers.items()], model)


def path_fields(request: Request, model: type[Body]) -> Body:
    """Return the parameters of a request's path.

    Raises:
        WireError: there is nothing of that name.
    """
    try:
        return model.model_validate(request.path_params)
    except ValidationError as error:
        raise WireError(404, "there is nothing here", code="http_404") from error


def text_fields(items: Iterable[tuple[str, str]], model: type[Body]) -> Body:
    """Return fields that came as text, each once; others are let pass.

    Raises:
        WireError: one of them is impossible, or stands twice.
    """
    found: dict[str, str] = {}
    names = {field.alias or name for name, field in model.model_fields.items()}
    for name, value in items:
        if name not in names:
            continue
        if name in found:
            raise WireError(400, f"{name} was sent twice: send it once", param=name, code="invalid_value")
        found[name] = value
    return parsed(model, found, is_form=True)


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
