"""Lines for people, or for programs that read JSON."""

import json
import logging
import sys
import time
from typing import Literal
from urllib.parse import quote

LogFormat = Literal["text", "json"]
_FIELDS = ("request_id", "method", "path", "status", "seconds", "job", "state", "requests")


class _Lines(logging.Formatter):
    """One line a record, with the fields that it has.

    Args:
        kind: of the lines.
    """

    def __init__(self, kind: LogFormat) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        trace = "" if record.exc_info is None else self.formatException(record.exc_info)
        if self._kind == "json":
            line = {"time": f"{moment}Z", "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps(line | fields | ({"trace": trace} if trace else {}), ensure_ascii=False)
        words = " ".join(f"{name}={_word(value)}" for name, value in fields.items())
        return f"{moment}Z {record.getMessage()} {words}".rstrip() + (f"\n{trace}" if trace else "")


def _word(value: object) -> str:
    """Return a field as one word: a path may hold line ends and blanks, and must not look like other fields."""
    return "".join(
        each if each.isprintable() and each != " " else quote(each, errors="replace") for each in str(value)
    )


def set_up_logs(kind: LogFormat, is_quiet: bool) -> None:
    """Have the server's log written to stderr.

    Args:
        kind: of the lines.
        is_quiet: leave out what is no warning.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(kind))
    for name in ("cogview.serving", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.WARNING if is_quiet or name == "uvicorn" else logging.INFO)
