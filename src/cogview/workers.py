"""An ordered map over worker processes, with bounded memory."""

import multiprocessing
import os
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from cogview.errors import CogViewError, UsageError

ITEMS_AHEAD = 2  # per worker
MAX_BYTES_AHEAD = 2**30

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int,
    num_bytes: Callable[[Item], int] | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Yield items with their results, in order.

    Args:
        function: picklable function of an item; sent to each worker once.
        items: read lazily, at most `ITEMS_AHEAD` per worker ahead.
        num_workers: worker processes; 0 for this process. They are spawned, so a script that asks for some needs the
            guard `if __name__ == "__main__":`.
        num_bytes: memory that an item takes; at most `MAX_BYTES_AHEAD` and one item wait.

    Raises:
        CogViewError: a worker was killed.
        UsageError: `num_workers` is negative.
    """
    if num_workers < 0:
        raise UsageError(f"num_workers must be 0 or more, got {num_workers}")
    if num_workers == 0:
        yield from ((item, function(item)) for item in items)
        return
    pending: deque[tuple[Item, Future[Result]]] = deque()
    num_bytes_pending = 0
    own, workers = threading.local(), []

    def call(item: Item) -> Result:
        if not hasattr(own, "worker"):
            own.worker = Worker(function)
            workers.append(own.worker)
        result: Result = own.worker.run(item)
        return result

    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="worker")
    try:
        for item in items:
            pending.append((item, pool.submit(call, item)))
            num_bytes_pending += num_bytes(item) if num_bytes else 0
            while pending and (
                len(pending) > ITEMS_AHEAD * num_workers or num_bytes_pending > MAX_BYTES_AHEAD
            ):
                num_bytes_pending -= num_bytes(pending[0][0]) if num_bytes else 0
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def _result(item: Item, future: Future[Result]) -> tuple[Item, Result]:
    return item, future.result()


class Worker(Generic[Item, Result]):
    """Process that applies a function to one item at a time, and ends with this one, even if that is killed.

    It is spawned, since a fork copies the locks of torch's threads. It has a pipe of its own: where processes share
    one, as in `ProcessPoolExecutor`, a kill of one while it writes a result leaves all waiting for ever.

    Args:
        function: picklable function of an item.
    """

    def __init__(self, function: Callable[[Item], Result]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        process = context.Process(target=_serve, args=(other_end, function), daemon=True)
        process.start()
        other_end.close()
        self.close = weakref.finalize(self, _close, self._connection, process)

    def run(self, item: Item) -> Result:
        """Return the function's result, or raise its error."""
        try:
            self._connection.send(item)
            is_result, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise CogViewError(
                "A worker process was killed, perhaps out of memory: use fewer workers."
            ) from error
        if not is_result:
            raise answer
        result: Result = answer
        return result


def _close(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.join()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer item after item, until the other end is closed."""
    # Both reach a whole group of processes, and it is the first of them that ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "spawned"

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(item)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = False, error
        try:
            connection.send(answer)
        except OSError:  # nobody waits for it any more
            return
