"""`launch/serve_ray.py` with two replicas on a CPU: what only Ray can show. The rest is in `test_ray_link.py`."""

import base64
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from live import LiveServer, live_server

SCRIPT = Path(__file__).parents[2] / "launch" / "serve_ray.py"

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
    ),
    pytest.mark.timeout(600),
]
BODY = {"prompt": "a red apple"}


def environment(folder: Path) -> dict[str, str]:
    """Return that of a cluster whose token is not the user's."""
    token = folder / "token"
    token.write_text("0" * 64)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("ray")
    program, words = [SCRIPT], ("--replicas", "2", "--cpus", "0.5", "--data", folder / "data")
    with live_server(*words, program=program, environment=environment(folder)) as started:
        yield started


def stat(pid: int) -> list[str]:
    """Return what the system knows of a process, from its state on; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def processes(cluster: LiveServer, word: str) -> list[int]:
    """Return the cluster's processes whose command line has a word."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    parent_of = {pid: int(found[1]) for pid in pids if (found := stat(pid))}
    found = []
    for pid in parent_of:
        above = pid
        while above in parent_of and above != cluster.process.pid:
            above = parent_of[above]
        if above == cluster.process.pid and word in command_line(pid):
            found.append(pid)
    return sorted(found)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def engines(cluster: LiveServer) -> list[int]:
    return processes(cluster, "-m cogview.serving.engine_process")


def seconds_of(pid: int) -> float:
    """Return for how long a process has computed."""
    found = stat(pid)
    return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK") if found else 0.0


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def drawn(server: LiveServer, seed: int, num: int = 1) -> list[bytes]:
    answer = httpx.post(
        f"{server.url}/v1/images/generations", json=BODY | {"n": num, "seed": seed}, timeout=300
    )
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]]


def test_requests_land_on_both_replicas_and_their_pictures_are_those_drawn_alone(
    cluster: LiveServer, server: LiveServer
) -> None:
    before = {pid: seconds_of(pid) for pid in engines(cluster)}
    assert len(before) == 2
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: drawn(cluster, seed, 4), (10, 20)))
    assert together == [drawn(server, seed, 4) for seed in (10, 20)]
    assert all(seconds_of(pid) - seconds > 0.2 for pid, seconds in before.items()), "both have computed"


def streamed(cluster: LiveServer, seed: int) -> list[tuple[float, str]]:
    """Return when which event came."""
    body = BODY | {"n": 10, "seed": seed, "stream": True, "partial_images": 3}
    events = []
    with httpx.stream("POST", f"{cluster.url}/v1/images/generations", json=body, timeout=300) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                kind = json.loads(line.removeprefix("data: "))["type"]
                events.append((time.monotonic(), kind.removeprefix("image_generation.")))
    return events


def test_previews_and_pictures_come_before_the_end(cluster: LiveServer) -> None:
    for seed in range(5):  # a machine that is busy sends fewer previews, or none
        events = streamed(cluster, seed)
        kinds = [kind for _, kind in events]
        assert kinds.count("completed") == 10
        if "partial_image" in kinds:
            break
    first = kinds.index("partial_image")
    assert first < kinds.index("completed")
    assert events[-1][0] - events[first][0] > 0.05, "not all at once"


def test_a_client_who_leaves_stops_the_engine(cluster: LiveServer) -> None:
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{cluster.url}/v1/images/generations", json=BODY | {"n": 10, "candidates": 64}, timeout=1)
    pids = engines(cluster)
    time.sleep(2)
    before = sum(map(seconds_of, pids))
    time.sleep(1)
    assert sum(map(seconds_of, pids)) - before < 0.3, "64 candidates take much longer than this"


@pytest.mark.parametrize("victim", ["ray::ServeReplica:cogview:engine-0", "engine_process"])
def test_what_a_killed_replica_or_engine_had_is_drawn_by_the_other(
    cluster: LiveServer, server: LiveServer, victim: str
) -> None:
    until(lambda: len(engines(cluster)) == 2)
    until(lambda: httpx.get(f"{cluster.url}/readyz").status_code == 200)
    before = set(engines(cluster))
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(drawn, cluster, 100 * number, 4) for number in range(6)]
        time.sleep(1)
        os.kill(processes(cluster, victim)[0], signal.SIGKILL)
        assert not all(future.done() for future in futures)
        assert [future.result() for future in futures] == [
            drawn(server, 100 * number, 4) for number in range(6)
        ]
    until(lambda: len(engines(cluster)) == 2 and set(engines(cluster)) != before)


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["--replicas", "0"], 2, "--replicas"),
        (["--host", "0.0.0.0"], 2, "--api-key"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    tmp_path: Path, words: list[str], status: int, complaint: str
) -> None:
    answer = subprocess.run(
        [sys.executable, SCRIPT, *words],
        env=os.environ | environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == status
    assert answer.stderr.count("\n") == 1
    assert complaint in answer.stderr


def test_a_taken_port_is_refused(cluster: LiveServer, tmp_path: Path) -> None:
    """Two proxies of Ray would both listen there, each with a part of the requests."""
    port = cluster.url.rpartition(":")[2]
    answer = subprocess.run(
        [sys.executable, SCRIPT, "--port", port],
        env=os.environ | environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}" in answer.stderr
