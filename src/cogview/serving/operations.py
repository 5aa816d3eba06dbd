"""Description of an HTTP operation: handler, parameters, bodies and answers.

Both the routes and `/openapi.json` are built from it, so that everything served is described.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cogview.serving.http import header_fields, path_fields, query_fields

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Method: TypeAlias = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True)
class Json:
    """JSON body."""

    model: type[BaseModel]


@dataclass(frozen=True, kw_only=True)
class Form:
    """Multipart form.

    Args:
        model: schema of its text fields.
        files: names and descriptions of its pictures.
        many: maximum count of pictures that may be repeated.
        optional: names of optional pictures.
    """

    model: type[BaseModel]
    files: Mapping[str, str]
    many: Mapping[str, int] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Events:
    """Stream of server-sent events with JSON data."""

    models: tuple[type[BaseModel], ...]


@dataclass(frozen=True)
class File:
    """File body."""

    media_types: tuple[str, ...]


Content: TypeAlias = Json | Form | Events | File


@dataclass(frozen=True, kw_only=True)
class Operation:
    """HTTP operation.

    Args:
        method: HTTP method.
        path: with parameters in braces, in Starlette's syntax.
        handler: its docstring's first line is the summary.
        tag: group in the description.
        answers: possible bodies by status.
        bodies: possible request bodies.
        path_model: schema of the path's parameters; 404 if they do not match.
        query: schema of the query.
        headers: schema of the headers it reads.
        errors: error statuses, besides those implied by bodies and parameters.
    """

    method: Method
    path: str
    handler: Handler
    tag: str
    answers: Mapping[int, Sequence[Content]]
    bodies: tuple[Json | Form, ...] = ()
    path_model: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()

    @property
    def summary(self) -> str:
        """Return the first line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]

    async def checked(self, request: Request) -> Response:
        """Validate a request's parameters and call the handler.

        Raises:
            ApiError: a parameter is invalid, or the handler raised it.
        """
        if self.path_model is not None:
            request.state.path = path_fields(request, self.path_model)
        if self.query is not None:
            request.state.query = query_fields(request, self.query)
        if self.headers is not None:
            request.state.headers = header_fields(request, self.headers)
        return await self.handler(request)


def routes_of(operations: Sequence[Operation]) -> list[Route]:
    """Build one route per path, so that a 405 lists all of its methods."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint(of_path), methods=list(of_path)) for path, of_path in by_path.items()]


def _endpoint(of_path: Mapping[str, Operation]) -> Handler:
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await of_path[method].checked(request)

    return endpoint
