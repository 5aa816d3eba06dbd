"""Static files of the page, read from the package at the start."""

import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FIRST = "index.html"
_MEDIA_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, kw_only=True)
class _File:
    """Static file.

    Args:
        data: its content.
        media_type: of the file.
        tag: ETag, a hash of the content.
    """

    data: bytes
    media_type: str
    tag: str


class PageFiles:
    """Request handler of the static files. Names are fixed at the start, so no request reaches the disk."""

    def __init__(self) -> None:
        self._files = {
            file.name: _File(
                data=file.read_bytes(),
                media_type=_MEDIA_TYPES[file.name.rpartition(".")[2]],
                tag=f'"{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}"',
            )
            for file in resources.files("cogview.serving").joinpath("page").iterdir()
            if file.name.rpartition(".")[2] in _MEDIA_TYPES
        }

    def routes(self) -> list[Route]:
        """Return the routes of the files."""
        return [
            Route("/", self.file, methods=["GET"]),
            Route("/page/{name}", self.file, methods=["GET"]),
        ]

    async def file(self, request: Request) -> Response:
        """Return a file, or 304 if the browser has it; browsers always ask, since an update changes it."""
        file = self._files.get(request.path_params.get("name", FIRST))
        if file is None:
            raise HTTPException(404)
        headers = {"Cache-Control": "no-cache", "ETag": file.tag}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.media_type, headers=headers)
