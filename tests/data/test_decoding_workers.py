"""Processes that decode pictures do not outlive the one that started them."""

import os
import time
from pathlib import Path

import pytest
from picture_folders import start

from cogview.data.decoding import map_in_order

pytestmark = pytest.mark.slow


def pid_of_worker(number: int) -> int:
    return os.getpid()


def wait_for_ever_with_a_worker(log: Path) -> None:
    for _, pid in map_in_order(pid_of_worker, range(9), num_workers=1):
        log.write_text(str(pid))
        time.sleep(60)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = start(wait_for_ever_with_a_worker, log)
    while not (log.exists() and log.read_text()):
        time.sleep(0.01)
    worker = Path(f"/proc/{log.read_text()}/stat")
    if not worker.exists():
        pytest.skip("no /proc here")
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 60
    # Nobody may be there to collect it: then it stays as a zombie, "Z".
    while worker.exists() and worker.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
