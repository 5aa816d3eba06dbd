"""The engines that one task works with, read as one: each request has a listener that is told what comes of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Generic, TypeVar

from cogview.decoding.engine import Engine, Runner, Session
from cogview.decoding.request import Drawn, Finished, Progressed, Request

Told = TypeVar("Told")

Listener = Callable[[Progressed | Drawn], Iterator[Told]]
"""Is told of new tokens of a request, and at last of its result; what it yields is told further."""


class Sessions(Generic[Told]):
    """A session with each engine that is needed: adapters share the model's, other transformers have their own.

    When the block ends, however it ends, all that is left is stopped.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._sessions: dict[Engine, Session] = {}
        self._listeners: dict[tuple[Engine, int], Listener[Told]] = {}

    def __enter__(self) -> "Sessions[Told]":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def num_pending(self) -> int:
        """Return how many requests are waiting or being worked on."""
        return len(self._listeners)

    def add(self, runner: Runner, request: Request, listener: Listener[Told]) -> None:
        """Take a request, also while `step` is read."""
        engine = runner.engine
        if engine not in self._sessions:
            self._sessions[engine] = self._stack.enter_context(engine.session())
        self._listeners[engine, self._sessions[engine].add(request)] = listener

    def step(self) -> Iterator[Told]:
        """Run a pass of each engine that has work, and yield what the listeners make of it.

        Raises:
            CogViewError: a request failed.
        """
        for engine, session in list(self._sessions.items()):
            if not session.num_pending:
                continue
            for event in session.step():
                if isinstance(event, Progressed):
                    yield from self._listeners[engine, event.number](event)
                elif isinstance(event, Finished):
                    assert isinstance(event.result, Drawn), "nothing is searched"
                    yield from self._listeners.pop((engine, event.number))(event.result)
