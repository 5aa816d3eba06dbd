"""The engines that one task works with, read as one: each request has a listener that is told what comes of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from cogview.decoding.engine import Engine, Runner, Session
from cogview.decoding.request import Drawn, Failed, Progressed, Request

Told = TypeVar("Told")

Listener = Callable[[Progressed | Drawn], Iterator[Told]]
"""Is told of new tokens of a request, and at last of its result; what it yields is told further."""

OnFailure = Callable[[Exception], Iterator[Told]]
"""Is told why a request could not be carried out; what it yields is told further."""

Ticket: TypeAlias = tuple[Engine, int]
"""A request that was taken, by which it can be stopped."""


@runtime_checkable
class TakesRequests(Protocol[Told]):
    """Where requests can be left."""

    def add(self, runner: Runner, request: Request, listener: Listener[Told]) -> object:
        """Take a request, and tell a listener what comes of it."""


class Sessions(Generic[Told]):
    """A session with each engine that is needed: adapters share the model's, other transformers have their own.

    When the block ends, however it ends, all that is left is stopped.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._sessions: dict[Engine, Session] = {}
        self._listeners: dict[Ticket, tuple[Listener[Told], OnFailure[Told]]] = {}

    def __enter__(self) -> "Sessions[Told]":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def num_pending(self) -> int:
        """Return how many requests are waiting or being worked on."""
        return len(self._listeners)

    def add(
        self,
        runner: Runner,
        request: Request,
        listener: Listener[Told],
        on_failure: OnFailure[Told] | None = None,
    ) -> Ticket:
        """Take a request, also while `step` is read.

        Args:
            runner: carries it out.
            request: itself.
            listener: is told what comes of it.
            on_failure: is told if nothing does; by default `step` raises it.
        """
        engine = runner.engine
        if engine not in self._sessions:
            self._sessions[engine] = self._stack.enter_context(engine.session())
        ticket = engine, self._sessions[engine].add(request)
        self._listeners[ticket] = listener, on_failure or _raise
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """Stop working on a request, and tell nobody more of it; one that is done is left alone."""
        engine, number = ticket
        if self._listeners.pop(ticket, None) is not None:
            self._sessions[engine].abort(number)

    def set_urgent(self, ticket: Ticket, is_urgent: bool) -> None:
        """Let a request be worked on before others, or no longer; one that is done is left alone."""
        engine, number = ticket
        if ticket in self._listeners:
            engine.set_urgent(number, is_urgent)

    def step(self) -> Iterator[Told]:
        """Run a pass of each engine that has work, and yield what the listeners make of it.

        Raises:
            CogViewError: a request failed, and nobody is to be told.
        """
        for engine, session in list(self._sessions.items()):
            if not session.num_pending:
                continue
            for event in session.told():
                ticket = engine, event.number
                if ticket not in self._listeners:  # stopped in the meantime
                    continue
                listener, on_failure = self._listeners[ticket]
                if not isinstance(event, Progressed):
                    del self._listeners[ticket]
                if isinstance(event, Failed):
                    yield from on_failure(event.error)
                elif isinstance(event, Progressed):
                    yield from listener(event)
                else:
                    assert isinstance(event.result, Drawn), "nothing is searched"
                    yield from listener(event.result)


def _raise(error: Exception) -> Iterator[Any]:
    raise error
