"""In-memory files behind unguessable urls that expire."""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class _File:
    data: bytes
    media_type: str
    end: float


class TemporaryFiles:
    """Files in memory, under random names.

    Args:
        seconds: lifetime of a file.
        max_bytes: of all files; the oldest are dropped first.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._files: OrderedDict[str, _File] = OrderedDict()

    def add(self, data: bytes, media_type: str) -> str:
        """Add a file and return its name."""
        name = secrets.token_urlsafe(24)
        self._files[name] = _File(data, media_type, time.monotonic() + self._seconds)
        self._num_bytes += len(data)
        while self._files and self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._files)))
        return name

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Return a file and its media type; None if unknown or expired."""
        file = self._files.get(name)
        if file is None:
            return None
        if file.end < time.monotonic():
            self._drop(name)
            return None
        return file.data, file.media_type

    def _drop(self, name: str) -> None:
        self._num_bytes -= len(self._files.pop(name).data)
