"""A server as users start it, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cogview

START_SECONDS = 120


@dataclass(kw_only=True, eq=False)
class LiveServer:
    """`cogview serve` while it runs.

    Args:
        process: of it.
        url: its address, without a slash at the end.
        lines: what it has written to stderr so far.
    """

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def engine_pids(self) -> list[int]:
        """Return the numbers of its engines' processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(each) for each in children]


@contextmanager
def live_server(
    *arguments: str | Path,
    stop: int = signal.SIGTERM,
    program: Sequence[str | Path] = ("-m", "cogview", "serve"),
    environment: Mapping[str, str] | None = None,
) -> Iterator[LiveServer]:
    """Start a server on a free port, yield it once it is ready, and end it."""
    source = Path(cogview.__file__).parent.parent
    command = [sys.executable, *map(str, program), "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONUNBUFFERED": "1"} | dict(environment or {}),
    )
    lines: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reading.start()
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.start()
    try:
        first = process.stdout.readline()
        killer.cancel()
        found = re.fullmatch(r"cogview: ready at (http://\S+)/\n", first)
        assert found is not None, (first, lines)
        yield LiveServer(process=process, url=found[1], lines=lines)
    finally:
        killer.cancel()
        if process.poll() is None:
            process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        reading.join(20)
        process.stdout.close()
        process.stderr.close()
