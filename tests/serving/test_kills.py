"""A server or an engine that is killed loses no finished picture, and draws the rest with the same seeds."""

import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from live import LiveServer, live_server

pytestmark = pytest.mark.slow

BODY = {"prompt": "two dogs on a yellow background", "n": 4, "seed": 11, "size": "128x128"}


def until(server: LiveServer, job: str, kind: str) -> list[dict[str, object]]:
    """Read what is told of a job until something of a kind is."""
    found: list[dict[str, object]] = []
    with httpx.stream("GET", f"{server.url}/api/jobs/{job}/events", timeout=120) as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if found[-1]["type"] == kind:
                    break
    return found


def files(server: LiveServer, job: str) -> dict[int, bytes]:
    told = httpx.get(f"{server.url}/api/jobs/{job}").json()
    return {each["place"]: httpx.get(server.url + each["url"]).content for each in told["pictures"]}


def test_what_is_killed_in_mid_job_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    with live_server("--data", tmp_path / "served", "--log-format", "json", stop=signal.SIGKILL) as server:
        (undisturbed,) = [httpx.post(f"{server.url}/api/jobs", json=BODY).json()["id"]]
        until(server, undisturbed, "done")
        wanted = files(server, undisturbed)

        job = httpx.post(f"{server.url}/api/jobs", json=BODY).json()["id"]
        until(server, job, "picture")
        os.kill(server.engine_pids()[0], signal.SIGKILL)
        assert until(server, job, "done")[-1]["type"] == "done"
        assert files(server, job) == wanted

        job = httpx.post(f"{server.url}/api/jobs", json=BODY).json()["id"]
        until(server, job, "picture")
        before = files(server, job)
    assert before
    (death,) = [line for line in map(json.loads, server.lines) if "signal 9" in line["event"]]
    assert death["level"] == "warning"
    with live_server("--data", tmp_path / "served") as server:
        assert files(server, job).items() >= before.items()
        told = until(server, job, "done")
        assert told[-1]["type"] == "done"
        assert files(server, job) == wanted
        again = httpx.get(f"{server.url}/api/jobs/{job}").json()
        assert again["state"] == "done"
    assert server.process.returncode == 0
