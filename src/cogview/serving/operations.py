"""What the server can be asked for: each operation with its handler, what it takes, and what it answers.

The routes and `/openapi.json` are made of the same table, so that nothing is served that is not described.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cogview.serving.wire import header_fields, path_fields, query_fields

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Method: TypeAlias = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True)
class Json:
    """A body in JSON.

    Args:
        model: of its fields.
    """

    model: type[BaseModel]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A multipart form.

    Args:
        model: of the fields that are text.
        files: names of the pictures, and what each is.
        many: how many there may be of those that may come several times.
        optional: names of those that may be left out.
    """

    model: type[BaseModel]
    files: Mapping[str, str]
    many: Mapping[str, int] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Events:
    """A stream of events, each with one of these as JSON in its data.

    Args:
        models: of the data.
    """

    models: tuple[type[BaseModel], ...]


@dataclass(frozen=True)
class File:
    """A file.

    Args:
        media_types: that it may have.
    """

    media_types: tuple[str, ...]


Content: TypeAlias = Json | Form | Events | File


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that the server can be asked for.

    Args:
        method: of HTTP.
        path: with parameters in braces, as Starlette writes them.
        handler: whose docstring says what it does.
        tag: of the group that it belongs to.
        answers: what is answered by status; several where the request decides.
        bodies: what may be sent; nothing if empty.
        path_model: of the path's parameters; what does not fit is not found.
        query: of the query's parameters.
        headers: of headers that mean something here.
        errors: statuses of errors, beside those that its bodies and parameters lead to.
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
        """Return what it does, in one line."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]

    async def checked(self, request: Request) -> Response:
        """Carry a request out whose parameters fit.

        Raises:
            WireError: they do not, or the handler says so.
        """
        if self.path_model is not None:
            request.state.path = path_fields(request, self.path_model)
        if self.query is not None:
            request.state.query = query_fields(request, self.query)
        if self.headers is not None:
            request.state.headers = header_fields(request, self.headers)
        return await self.handler(request)


def routes_of(operations: Sequence[Operation]) -> list[Route]:
    """Return the routes of operations, one for each path, so that a 405 names all methods of it."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint(of_path), methods=list(of_path)) for path, of_path in by_path.items()]


def _endpoint(of_path: Mapping[str, Operation]) -> Handler:
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await of_path[method].checked(request)

    return endpoint
