"""A server as users start it, for the benchmarks of serving."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(kw_only=True, eq=False)
class Served:
    """`cogview serve` while it runs, begun again if it ends, as a service manager does.

    Args:
        arguments: of the command.
        port: to listen at.
    """

    arguments: tuple[str, ...]
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin the process."""
        command = [sys.executable, "-m", "cogview", "serve", "--port", str(self.port), "--quiet"]
        self.process = subprocess.Popen(
            [*command, *self.arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )

    def wait_ready(self, seconds: float = 120) -> float:
        """Wait until it is ready, and return how long that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError("the server has ended")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return time.monotonic() - started
            time.sleep(0.05)
        raise RuntimeError("the server did not become ready")

    def pids(self) -> list[int]:
        """Return the numbers of its process and of its engines'."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def resident_bytes(self) -> int:
        """Return the memory of all of them."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
                total += int(pages) * os.sysconf("SC_PAGE_SIZE")
        return total

    def stop(self) -> int:
        """End it, and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


@contextmanager
def served(*arguments: str | Path) -> Iterator[Served]:
    """Start a server at a free port, yield it once it is ready, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Served(arguments=tuple(map(str, arguments)), port=port)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.stop()


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of some values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def drawn_alone(requests: list[dict[str, Any]]) -> list[bytes]:
    """Return the pixels of what requests ask for, drawn one by one without a server."""
    import cogview

    pipe = cogview.load()
    found = []
    for each in requests:
        options = {"size_pixels": int(each["size"].split("x")[0])} if "size" in each else {}
        (picture,) = pipe.generate(each["prompt"], 1, seed=each["seed"], **options)
        found.append(picture.image.tobytes())
    return found
