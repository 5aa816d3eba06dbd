"""Worker processes answer in order, and end with the process that started them, however it ends or they do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cogview.errors import CogViewError
from cogview.workers import map_in_order

pytestmark = pytest.mark.slow

LARGE = 2**24
"""More than a pipe holds, so that a worker waits while it writes it."""


def pid_and_much(number: int) -> tuple[int, np.ndarray]:
    return os.getpid(), np.zeros(LARGE, np.uint8)


def odd_is_refused(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def killing_itself(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def run_script(log: Path, call: str) -> "subprocess.Popen[str]":
    """Start a process, in a group of its own, that maps over workers and logs their ids."""
    script = (
        "import time; from pathlib import Path; from test_workers import *\n"
        f"def main(log):\n    for _, (pid, _) in map_in_order(pid_and_much, range(99), num_workers=2):\n"
        f"        log.open('a').write(f'{{pid}}\\n'); {call}\n"
        f"if __name__ == '__main__':\n    main(Path({str(log)!r}))\n"
    )
    path = log.with_name("script.py")
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: str) -> bool:
    """Nobody may be there to collect it: then it stays as a zombie, "Z"."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_errors_of_a_function_are_raised_where_their_item_comes() -> None:
    results = map_in_order(odd_is_refused, range(9), num_workers=2)
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match="1 is odd") as raised:
        next(results)
    assert "odd_is_refused" in "".join(raised.value.__notes__)


def test_a_worker_that_is_killed_is_said() -> None:
    with pytest.raises(CogViewError, match="killed"):
        list(map_in_order(killing_itself, range(9), num_workers=2))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("is_at_work", [True, False])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, is_at_work: bool) -> None:
    log = tmp_path / "log"
    log.touch()
    parent = run_script(log, "pass" if is_at_work else "time.sleep(99)")
    wait_until(lambda: bool(log.read_text()))
    parent.kill()
    parent.communicate()
    for pid in set(log.read_text().split()):
        wait_until(lambda pid=pid: is_gone(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_ends_it_by_its_first_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal, a service manager and `timeout` send it: a worker may be writing a result just then."""
    log = tmp_path / "log"
    log.touch()
    # A shell's jobs in the background begin with SIGINT ignored.
    call = "signal.signal(signal.SIGINT, signal.default_int_handler); "
    call += "signal.signal(signal.SIGTERM, lambda *_: sys.exit('asked to end')); time.sleep(0.01)"
    parent = run_script(log, call)
    wait_until(lambda: len(log.read_text().split()) > 2)
    os.killpg(parent.pid, number)
    _, errors = parent.communicate(timeout=60)
    assert ("asked to end" if number == signal.SIGTERM else "KeyboardInterrupt") in errors
    assert "worker process was killed" not in errors


def test_one_that_is_killed_while_it_writes_leaves_nobody_waiting(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    parent = run_script(log, "time.sleep(0.2)")
    wait_until(lambda: len(log.read_text().split()) > 2)
    for pid in set(log.read_text().split()):
        os.kill(int(pid), signal.SIGKILL)
    _, errors = parent.communicate(timeout=60)
    assert "worker process was killed" in errors
    assert parent.returncode == 1


def test_a_map_that_is_left_in_the_middle_keeps_no_process_from_ending(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    parent = run_script(log, "break")
    parent.communicate(timeout=60)
    assert parent.returncode == 0
