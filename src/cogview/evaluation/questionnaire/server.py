"""Web server of one questionnaire."""

import ipaddress
import json
import re
import socket
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from cogview.errors import CogViewError
from cogview.evaluation.questionnaire.answers import (
    SCALES,
    AnswerFile,
    checked_rater,
    parse_answer,
)
from cogview.evaluation.questionnaire.folder import Questionnaire
from cogview.plain_json import parse_json

MAX_BODY_BYTES = 65_536  # an answer on 26 pictures has about 4,000
_TIMEOUT_SECONDS = 30.0
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/questionnaire.css": ("questionnaire.css", "text/css; charset=utf-8"),
    "/questionnaire.js": ("questionnaire.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PICTURE = re.compile(r"/pictures/([0-9a-f]{32})\.png")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class QuestionnaireServer(ThreadingHTTPServer):
    """HTTP server that shows a questionnaire and stores the answers.

    Args:
        questionnaire: the questionnaire.
        answers: file of the answers.
        host: address to listen on; 127.0.0.1 for this machine only.
        port: port to listen on; 0 for any free port.

    Raises:
        CogViewError: it cannot listen there.
    """

    daemon_threads = True
    block_on_close = False  # browsers keep connections open

    def __init__(
        self, questionnaire: Questionnaire, answers: AnswerFile, host: str = "127.0.0.1", port: int = 8300
    ) -> None:
        self.questionnaire, self.answers = questionnaire, answers
        pages = resources.files("cogview.evaluation.questionnaire") / "pages"
        self.pages = {
            path: (pages.joinpath(name).read_bytes(), kind) for path, (name, kind) in _PAGES.items()
        }
        self.pictures = {picture for question in questionnaire.questions for picture in question.pictures}
        self.names = {"localhost", host.lower(), socket.gethostname().lower()} - {""}
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise CogViewError(
                f"cannot listen on {host}:{port} ({error}): choose another --port or --host"
            ) from error

    @property
    def url(self) -> str:
        """URL for a browser; with this machine's name if the server listens on all addresses."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{socket.gethostname() if host == '0.0.0.0' else host}:{port}/"

    def server_bind(self) -> None:
        """Bind without the base class's DNS lookup of this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore broken connections."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Refusal(Exception):
    """Refusal of a request, with an HTTP status and a message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Handler of the requests of one connection."""

    server: QuestionnaireServer
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Respond with a page, a picture or the questions."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Store an answer."""
        self._respond(self._post)

    def version_string(self) -> str:
        """Return the value of the Server header."""
        return "cogview"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _respond(self, handle: Any) -> None:
        try:
            self._check_host()
            body, kind, keeps = handle()
            status = HTTPStatus.OK
        except _Refusal as refusal:
            self.close_connection = True  # the rest of the request is not read
            body, kind, keeps = _json_bytes({"error": str(refusal)}), "application/json", False
            status = refusal.status
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "private, max-age=86400, immutable" if keeps else "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _get(self) -> tuple[bytes, str, bool]:
        """Return content, its type and whether a browser may cache it."""
        address = _split(self.path)
        if address.path in self.server.pages:
            return *self.server.pages[address.path], False
        if address.path == "/api/questions":
            (rater,) = parse_qs(address.query).get("rater", [""])[:1]
            return _json_bytes(self._questions(_rater(rater))), "application/json", False
        match = _PICTURE.fullmatch(address.path)
        if match is None or match[1] not in self.server.pictures:
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")
        try:
            return self.server.questionnaire.picture_path(match[1]).read_bytes(), "image/png", True
        except OSError as error:
            raise _Refusal(HTTPStatus.NOT_FOUND, "the picture is gone") from error

    def _post(self) -> tuple[bytes, str, bool]:
        """Store the answer in the request, and return the response."""
        if _split(self.path).path != "/api/answers":
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")
        self._refuse_other_sites()
        try:
            record = parse_json(self._body(), is_strict=True)
            rater = checked_rater(record.get("rater") if isinstance(record, dict) else None)
            number = record.get("question")
            if type(number) is not int or number not in self.server.questionnaire.numbers_for(rater):
                raise ValueError("this rater is not asked that question")
            answer = parse_answer(
                record
                | {
                    "order": list(self.server.questionnaire.order_for(rater, number)),
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                },
                self.server.questionnaire,
            )
        except (ValueError, RecursionError) as error:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"no answer: {error}") from error
        try:
            self.server.answers.append(answer)
        except OSError as error:
            raise _Refusal(
                HTTPStatus.INSUFFICIENT_STORAGE, f"the answer could not be kept ({error.strerror})"
            ) from error
        return _json_bytes({"kept": True}), "application/json", False

    def _questions(self, rater: str) -> dict[str, Any]:
        """Return a rater's questions and earlier answers."""
        questionnaire, answers = self.server.questionnaire, self.server.answers.of(rater)
        return {
            "identity": questionnaire.identity,
            "title": questionnaire.title,
            "scales": SCALES,
            "questions": [
                {
                    "number": number,
                    "caption": questionnaire.questions[number].caption,
                    "pictures": questionnaire.order_for(rater, number),
                    "answer": _scores_and_best(asdict(answers[number])) if number in answers else None,
                }
                for number in questionnaire.numbers_for(rater)
            ],
        }

    def _check_host(self) -> None:
        """Refuse other host names than this machine's, against DNS rebinding."""
        host = self.headers.get("Host", "")
        name = (_split(f"//{host}").hostname or "") if _is_plain(host) else ""
        if name.lower() not in self.server.names and not _is_address(name):
            raise _Refusal(HTTPStatus.FORBIDDEN, "this server is not known by that name; use its address")

    def _refuse_other_sites(self) -> None:
        """Refuse requests from pages of other sites; programs other than browsers name no site."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
        if (origin is not None and origin != f"http://{self.headers.get('Host')}") or site != "same-origin":
            raise _Refusal(HTTPStatus.FORBIDDEN, "answers are taken from the questionnaire's own page only")
        if self.headers.get_content_type() != "application/json":
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "an answer is application/json")

    def _body(self) -> bytes:
        """Read the body of the request, if it is not too large."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length) or "Transfer-Encoding" in self.headers:
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "an answer says how long it is")
        if int(length) > MAX_BODY_BYTES:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES:,} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the answer is not whole")
        return body


def _split(address: str) -> SplitResult:
    """Split an address into its parts; an invalid one is not found."""
    try:
        return urlsplit(address)
    except ValueError as error:
        raise _Refusal(HTTPStatus.NOT_FOUND, "there is nothing here") from error


def _rater(value: str) -> str:
    try:
        return checked_rater(value)
    except ValueError as error:
        raise _Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error


def _scores_and_best(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an answer that the page shows again."""
    return {"scores": answer["scores"], "best": answer["best"]}


def _json_bytes(value: object) -> bytes:
    # Captions may hold lone surrogates.
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _is_plain(host: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9.\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", host) is not None


def _is_address(name: str) -> bool:
    """Return whether a host is an IP address, which DNS rebinding cannot use."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
