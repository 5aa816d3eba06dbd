"""Dispatch engine events to the listeners of their requests, across several engines."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from cogview.decoding.engine import Engine, Runner, Session
from cogview.decoding.request import Failed, Progressed, Request, SequenceResult

Output = TypeVar("Output")

Listener = Callable[[Progressed | SequenceResult], Iterator[Output]]
"""Called with each progress event of a request and with its result; `step` yields what it yields."""

OnFailure = Callable[[Exception], Iterator[Output]]
"""Called with the error of a failed request; `step` yields what it yields."""

Ticket: TypeAlias = tuple[Engine, int]
"""Handle of a submitted request."""


@runtime_checkable
class RequestSink(Protocol[Output]):
    """Accepts requests."""

    def add(self, runner: Runner, request: Request, listener: Listener[Output]) -> object:
        """Submit a request, and call a listener with its events."""


class RequestDispatcher(Generic[Output]):
    """One session per engine in use: adapters share the model's engine, other transformers have their own.

    Leaving the block stops all requests.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._sessions: dict[Engine, Session] = {}
        self._listeners: dict[Ticket, tuple[Listener[Output], OnFailure[Output]]] = {}

    def __enter__(self) -> "RequestDispatcher[Output]":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def num_pending(self) -> int:
        """Number of requests that wait or run."""
        return len(self._listeners)

    def add(
        self,
        runner: Runner,
        request: Request,
        listener: Listener[Output],
        on_failure: OnFailure[Output] | None = None,
    ) -> Ticket:
        """Submit a request; allowed while `step` is iterated.

        Args:
            runner: runs the request.
            request: to run.
            listener: called with the request's events.
            on_failure: called if the request fails; by default `step` raises the error.
        """
        engine = runner.engine
        if engine not in self._sessions:
            self._sessions[engine] = self._stack.enter_context(engine.session())
        ticket = engine, self._sessions[engine].add(request)
        self._listeners[ticket] = listener, on_failure or _raise
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """Stop a request without another event; do nothing if it is done."""
        engine, number = ticket
        if self._listeners.pop(ticket, None) is not None:
            self._sessions[engine].abort(number)

    def set_urgent(self, ticket: Ticket, is_urgent: bool) -> None:
        """Give a request priority over others, or take it back; do nothing if it is done."""
        engine, number = ticket
        if ticket in self._listeners:
            engine.set_urgent(number, is_urgent)

    def step(self) -> Iterator[Output]:
        """Run a pass of each engine that has work, and yield what the listeners yield.

        Raises:
            CogViewError: a request without `on_failure` failed.
        """
        for engine, session in list(self._sessions.items()):
            if not session.num_pending:
                continue
            for event in session.poll():
                ticket = engine, event.number
                if ticket not in self._listeners:  # aborted meanwhile
                    continue
                listener, on_failure = self._listeners[ticket]
                if not isinstance(event, Progressed):
                    del self._listeners[ticket]
                if isinstance(event, Failed):
                    yield from on_failure(event.error)
                elif isinstance(event, Progressed):
                    yield from listener(event)
                else:
                    assert isinstance(event.result, SequenceResult), "nothing is searched"
                    yield from listener(event.result)


def _raise(error: Exception) -> Iterator[Any]:
    raise error
