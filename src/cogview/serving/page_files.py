"""The page's files: read from the package once, when the server begins."""

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
    """A file of the page.

    Args:
        data: its bytes.
        media_type: of it.
        tag: changes with the bytes.
    """

    data: bytes
    media_type: str
    tag: str


class PageFiles:
    """Gives out the page. Its names are fixed at the start, so no request reaches the disk."""

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
        """Return where the files are found."""
        return [
            Route("/", self.file, methods=["GET"]),
            Route("/page/{name}", self.file, methods=["GET"]),
        ]

    async def file(self, request: Request) -> Response:
        """Give a file; a browser that has it is told so, and asks each time, since an update changes it."""
        file = self._files.get(request.path_params.get("name", FIRST))
        if file is None:
            raise HTTPException(404)
        headers = {"Cache-Control": "no-cache", "ETag": file.tag}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.media_type, headers=headers)
