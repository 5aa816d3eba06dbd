"""Log format of the server: text or JSON lines."""

import json
import logging
import sys
import time
from typing import Literal
from urllib.parse import quote

LogFormat = Literal["text", "json"]
_FIELDS = ("request_id", "method", "path", "status", "seconds", "job", "state", "requests")


class _LineFormatter(logging.Formatter):
    """Formatter of records as single lines with their extra fields."""

    def __init__(self, kind: LogFormat) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        fields = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        trace = "" if record.exc_info is None else self.formatException(record.exc_info)
        if self._kind == "json":
            line = {"time": f"{moment}Z", "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps(line | fields | ({"trace": trace} if trace else {}), ensure_ascii=False)
        words = " ".join(f"{name}={_escape(value)}" for name, value in fields.items())
        return f"{moment}Z {record.getMessage()} {words}".rstrip() + (f"\n{trace}" if trace else "")


def _escape(value: object) -> str:
    """Percent-encode blanks and control characters: a path must not forge other fields or lines."""
    return "".join(
        each if each.isprintable() and each != " " else quote(each, errors="replace") for each in str(value)
    )


def set_up_logs(kind: LogFormat, is_quiet: bool) -> None:
    """Write the server's log to stderr.

    Args:
        kind: of the lines.
        is_quiet: log only warnings and errors.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(kind))
    for name in ("cogview.serving", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.WARNING if is_quiet or name == "uvicorn" else logging.INFO)
