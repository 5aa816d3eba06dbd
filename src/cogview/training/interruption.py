"""Stop requests (Ctrl-C, SIGTERM), honoured between two steps."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """The run stopped on request after a checkpoint; a command exits with 130."""

    exit_code = 130


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a flag that the loop reads after each step.

    A second Ctrl-C stops at once; files being written are dropped, as after a kill.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows signal handlers there only
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        # Not print: the signal may have interrupted one.
        os.write(2, b"\nStopping after this step; Ctrl-C again stops at once.\n")
