"""The server of a questionnaire: it keeps answers, tells nothing of systems, and refuses all else."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cogview.errors import CogViewError
from cogview.evaluation.questionnaire.answers import read_answers
from cogview.evaluation.questionnaire.server import MAX_BODY_BYTES, QuestionnaireServer
from questionnaire_folder import COLOURS, questionnaire_in, record_of, serving

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QuestionnaireServer]:
    asked = questionnaire_in(tmp_path, questions_per_rater=2)
    (asked.folder / "key.json").rename(tmp_path / "key.json")  # serving does not need it
    with serving(asked) as server:
        yield server


def ask(
    server: QuestionnaireServer,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def given(server: QuestionnaireServer, rater: str = "anna", place: int = 0) -> dict:
    """Return what a page would send for one of the rater's questions."""
    number = server.questionnaire.numbers_for(rater)[place]
    record = record_of(server.questionnaire, rater, number)
    return {name: record[name] for name in ("rater", "question", "scores", "best", "seconds")}


def post(server: QuestionnaireServer, record: object, **headers: str) -> tuple[int, dict]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, body, _ = ask(server, "/api/answers", json.dumps(record).encode(), JSON | named)
    return status, json.loads(body)


def test_a_rater_gets_questions_and_finds_the_answers_again(server: QuestionnaireServer) -> None:
    asked = server.questionnaire
    status, body, _ = ask(server, "/api/questions?rater=anna")
    assert status == 200
    told = json.loads(body)
    assert [each["number"] for each in told["questions"]] == asked.numbers_for("anna")
    assert all(each["answer"] is None for each in told["questions"])
    record = given(server)
    assert post(server, record) == (200, {"kept": True})
    (answer,) = read_answers([asked.folder / "answers.jsonl"], asked)
    assert (answer.rater, answer.question) == ("anna", record["question"])
    assert answer.order == asked.order_for("anna", record["question"])
    assert answer.scores == record["scores"]
    assert answer.at.endswith("+00:00")
    told = json.loads(ask(server, "/api/questions?rater=anna")[1])
    assert told["questions"][0]["answer"] == {"scores": record["scores"], "best": record["best"]}
    assert told["questions"][1]["answer"] is None
    told = json.loads(ask(server, "/api/questions?rater=ben")[1])
    assert all(each["answer"] is None for each in told["questions"])


def test_nothing_that_is_served_names_a_system(server: QuestionnaireServer) -> None:
    paths = ["/", "/questionnaire.css", "/questionnaire.js", "/icon.svg", "/api/questions?rater=anna"]
    paths += [f"/pictures/{picture}.png" for picture in server.pictures]
    for path in paths:
        status, body, headers = ask(server, path)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        for name in COLOURS:
            assert name.encode() not in path.encode() + body + repr(headers).encode()
    assert body.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "path",
    [
        "/key.json",
        "/answers.jsonl",
        "/questionnaire.json",
        "/pictures/../questionnaire.json",
        "/pictures/..%2fquestionnaire.json",
        "/pictures/%2e%2e/questionnaire.json",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/pictures/",
        "/pictures/" + "0" * 32 + ".png",
        "/pages/index.html",
        "/index.html",
        "/api",
    ],
)
def test_no_path_leads_elsewhere(server: QuestionnaireServer, path: str) -> None:
    status, body, _ = ask(server, path)
    assert (status, json.loads(body)) == (404, {"error": "there is nothing here"})


def test_what_other_sites_send_is_refused(server: QuestionnaireServer) -> None:
    record, port = given(server), server.server_address[1]
    own = f"http://127.0.0.1:{port}"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},
        {"Host": "a@127.0.0.1"},
        {"Host": ""},
    ):
        status, told = post(server, record, **headers)
        assert (status, list(told)) == (403, ["error"])
    assert ask(server, "/api/questions?rater=a", headers={"Host": "evil.example"})[0] == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(server, "/api/answers", json.dumps(record).encode(), {"Content-Type": kind})[0] == 415
    assert server.answers.counts() == (0, 0)
    assert post(server, record, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert post(server, record, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


def test_what_is_no_answer_is_refused(server: QuestionnaireServer) -> None:
    record = given(server)
    not_asked = ({0, 1, 2} - set(server.questionnaire.numbers_for("anna"))).pop()
    for changed in (
        record | {"question": not_asked},
        record | {"question": [0]},
        record | {"rater": "../anna"},
        record | {"scores": {}},
        record | {"best": "ours"},
        record | {"seconds": -1},
        [record],
        None,
    ):
        status, told = post(server, changed)
        assert (status, list(told)) == (400, ["error"])
    for body in (b"", b"{", b"\xff", b"[" * 60_000):
        assert ask(server, "/api/answers", body, JSON)[0] == 400
    assert ask(server, "/api/answers", b" " * (MAX_BODY_BYTES + 1), JSON)[0] == 413
    assert ask(server, "/api/questions", json.dumps(record).encode(), JSON)[0] == 404
    assert ask(server, "/api/questions?rater=a%20b")[0] == 400
    assert ask(server, "/api/questions")[0] == 400
    assert ask(server, "/", method="DELETE")[0] == 501
    assert server.answers.counts() == (0, 0)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Content-Type: application/json", 411),
        ("Content-Type: application/json\r\nContent-Length: -1", 411),
        ("Content-Type: application/json\r\nContent-Length: 1e3", 411),
        ("Content-Type: application/json\r\nContent-Length: 99999999999", 411),
        ("Content-Type: application/json\r\nContent-Length: 999999999", 413),
        ("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nContent-Length: 2", 411),
        ("Content-Type: application/json\r\nContent-Length: 10", 400),  # and then no more comes
    ],
)
def test_lengths_are_checked_before_anything_is_read(
    server: QuestionnaireServer, lines: str, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as connection:
        connection.sendall(f"POST /api/answers HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n{{}}".encode())
        connection.shutdown(socket.SHUT_WR)
        assert f" {status} ".encode() in connection.makefile("rb").readline()


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [("http://[x/", "127.0.0.1", 404), ("/", "[::::::]", 404), ("/", "a_b", 403)],
)
def test_addresses_that_are_none_lead_to_nothing(
    server: QuestionnaireServer, address: str, host: str, status: int
) -> None:
    for method in ("GET", "POST"):
        with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as connection:
            connection.sendall(f"{method} {address} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert f" {status} ".encode() in connection.makefile("rb").readline()


def test_a_server_that_listens_everywhere_is_not_known_by_any_name(server: QuestionnaireServer) -> None:
    with QuestionnaireServer(server.questionnaire, server.answers, host="", port=0) as everywhere:
        assert "" not in everywhere.names


def test_half_a_surrogate_in_a_caption_is_asked_about_all_the_same(server: QuestionnaireServer) -> None:
    questions = tuple(replace(each, caption="a \ud800 cat") for each in server.questionnaire.questions)
    server.questionnaire = replace(server.questionnaire, questions=questions)
    status, body, _ = ask(server, "/api/questions?rater=anna")
    assert status == 200
    assert {each["caption"] for each in json.loads(body)["questions"]} == {"a ? cat"}


def test_an_answer_that_the_disk_refuses_is_not_told_as_kept(
    server: QuestionnaireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        assert post(server, given(server)) == (
            507,
            {"error": "the answer could not be kept (No space left on device)"},
        )
    assert (server.questionnaire.folder / "answers.jsonl").read_bytes() == b""
    assert post(server, given(server))[0] == 200


def test_a_taken_port_is_one_line(server: QuestionnaireServer) -> None:
    for host, port in (("127.0.0.1", server.server_address[1]), ("127.0.0.1", 99_999), ("192.0.2.1", 0)):
        with pytest.raises(CogViewError, match="choose another --port or --host"):
            QuestionnaireServer(server.questionnaire, server.answers, host, port)
