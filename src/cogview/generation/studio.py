"""The studio: any number of callers have pictures drawn side by side, and each is told of its own."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from cogview.decoding.engine import Runner
from cogview.decoding.request import Drawn, Progressed, Request
from cogview.generation.fair_queue import Client, FairQueue
from cogview.generation.haste import Haste
from cogview.generation.picture_events import GeneratedImage, PictureDone, PictureEvent, PicturePreview
from cogview.generation.picture_task import AskedText, PictureTask
from cogview.generation.previews import PreviewOptions, Previews, Shown
from cogview.generation.sessions import Listener, Sessions, Ticket
from cogview.generation.text_in_work import Candidate, DrawnPicture, TextInWork


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """A text that pictures are wanted of.

    Args:
        task: how they are drawn.
        asked: the text, and the seeds of its candidates.
        client: who asks.
        is_previewed: whether pictures are shown while they are drawn.
    """

    task: PictureTask
    asked: AskedText
    client: Client = ()
    is_previewed: bool = True


class OrderDone:
    """All pictures of an order are done."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OrderFailed:
    """An order could not be carried out.

    Args:
        error: why.
    """

    error: Exception


Told: TypeAlias = PictureEvent | OrderDone | OrderFailed
"""What an order's caller is told."""


class Studio:
    """Draws what is ordered, each step a pass of the transformer for all orders. It belongs to one thread.

    Pictures of an order do not depend on what else is ordered, as far as `Engine` holds that.

    Args:
        previews: how often pictures are shown that are still drawn; never if None.
        num_places: requests worked on at once, shared out fairly among clients; the engines decide if None.
        num_reserved: of these places, for clients who have none.
        max_decoded: pictures decoded between two passes, which keep all others waiting; all that are drawn if None.
        shows_rest: show what is not kept whole before an order ends, however long it takes.
    """

    def __init__(
        self,
        *,
        previews: PreviewOptions | None = None,
        num_places: int | None = None,
        num_reserved: int = 0,
        max_decoded: int | None = None,
        shows_rest: bool = True,
    ) -> None:
        self._preview_options = previews
        self._max_decoded = max_decoded
        self._shows_rest = shows_rest
        self._sessions = Sessions[_Event]()
        self._queue = FairQueue[_Waiting](num_places, num_reserved)
        self._haste = Haste()
        self._lanes: dict[AskedText, _Lane] = {}
        self._drawn: list[tuple[_Lane, DrawnPicture]] = []
        self._previews: dict[Hashable, Previews[Candidate]] = {}

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *error: object) -> None:
        self._sessions.__exit__(*error)

    @property
    def num_pending(self) -> int:
        """Return how many requests are waiting or being worked on."""
        return self._sessions.num_pending + len(self._queue)

    @property
    def num_running(self) -> int:
        """Return how many requests the engines have."""
        return self._sessions.num_pending

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is left to be done."""
        return not self._lanes

    def add(self, order: Order) -> None:
        """Begin with an order as soon as there is room."""
        lane = _Lane(order=order, queue=self._queue, previews=self._previews_for(order))
        self._lanes[order.asked] = lane
        work = TextInWork(
            order.task, lane, order.asked, lambda drawn: self._drawn.append((lane, drawn)), lane.previews
        )
        work.begin()
        lane.has_begun = True

    def abort(self, order: Order) -> None:
        """Stop working on an order; nothing more is told of it. One that is done or unknown is left alone."""
        lane = self._lanes.pop(order.asked, None)
        if lane is None:
            return
        self._queue.remove(order.client, lambda waiting: waiting.lane is lane)
        for ticket in lane.tickets:
            self._sessions.abort(ticket)
            self._queue.release(order.client)
        self._drawn = [each for each in self._drawn if each[0] is not lane]
        lane.forget_previews()

    def step(self) -> Iterator[tuple[Order, Told]]:
        """Run a pass for what is worked on, and yield what is told of it; orders may come and go meanwhile."""
        for asked, told in self._stepped():
            if asked not in self._lanes:  # stopped, or failed, in the meantime
                continue
            order = self._lanes[asked].order
            if isinstance(told, PicturePreview):
                self._was_shown(self._lanes[asked])
            if isinstance(told, OrderFailed):
                self.abort(order)
            elif isinstance(told, OrderDone):
                self._lanes.pop(asked).forget_previews()
            yield order, told

    def _stepped(self) -> "Iterator[_Event]":
        yield from self._begun()
        yield from self._sessions.step()
        yield from self._decoded()
        for shown in self._previews.values():
            yield from map(_preview, shown.due())

    def _begun(self) -> "Iterator[_Event]":
        """Hand over to the engines what there is room for."""
        self._haste.begin_step(self._is_hasty)
        while (waiting := self._queue.take()) is not None:
            lane = waiting.lane
            try:
                waiting.ticket = self._sessions.add(
                    waiting.runner, waiting.request, waiting.told, waiting.failed
                )
                lane.tickets.add(waiting.ticket)
                if self._is_urgent(lane):
                    lane.urgent = waiting.ticket
                    self._haste.join()
                    self._sessions.set_urgent(waiting.ticket, True)
            except Exception as error:
                self._queue.release(lane.order.client)
                yield lane.order.asked, OrderFailed(error=error)

    def _was_shown(self, lane: "_Lane") -> None:
        lane.was_shown = True
        if lane.urgent is not None:
            self._sessions.set_urgent(lane.urgent, False)
            lane.urgent = None

    def _is_urgent(self, lane: "_Lane") -> bool:
        """Return whether whoever asks has nothing else, and waits for a first look at it, while others are drawn."""
        options = self._preview_options
        is_prompt = options is not None and options.is_prompt and lane.previews is not None
        is_new = not lane.was_shown and self._queue.held_by(lane.order.client) == 1
        return is_prompt and is_new and self._haste.may_join

    @property
    def _is_hasty(self) -> bool:
        return any(lane.urgent is not None for lane in self._lanes.values())

    def _decoded(self) -> "Iterator[_Event]":
        """Yield pictures of codes. No pass runs meanwhile: its threads would wait for a core that decodes."""
        if not self._drawn or self._is_hasty:
            return
        key = _decoded_like(*self._drawn[0])
        taken = [each for each in self._drawn if _decoded_like(*each) == key][: self._max_decoded]
        self._drawn = [each for each in self._drawn if each not in taken]
        task = taken[0][0].order.task
        codes = torch.stack([drawn.codes for _, drawn in taken])
        try:
            images = task.model.decoder.decode_each(codes, task.size_pixels)
            for (lane, drawn), image in zip(taken, images, strict=True):
                yield lane.done(drawn, drawn.picture(image))
                if lane.is_done:
                    yield from lane.rest() if self._shows_rest else ()
                    yield lane.order.asked, OrderDone()
        except Exception as error:
            for lane, _ in taken:
                yield lane.order.asked, OrderFailed(error=error)

    def _previews_for(self, order: Order) -> Previews[Candidate] | None:
        """Return where pictures of an order grow, one for all that are decoded alike."""
        if self._preview_options is None or not order.is_previewed:
            return None
        tokenizer, template = order.task.model.image_tokenizer, order.task.codes.template
        grid = template.grid_rows, template.grid_columns
        key = tokenizer, grid
        if key not in self._previews:
            self._previews[key] = Previews(tokenizer, grid, self._preview_options)
        return self._previews[key]


_Event: TypeAlias = tuple[AskedText, Told]


@dataclass(kw_only=True, eq=False)
class _Lane:
    """An order in work: takes its requests, those that go on with what is drawn before those that begin.

    Args:
        order: itself.
        queue: where they wait.
        previews: where its pictures grow, if they are shown.
    """

    order: Order
    queue: "FairQueue[_Waiting]"
    previews: Previews[Candidate] | None
    tickets: set[Ticket] = field(default_factory=set)
    has_begun: bool = False
    num_done: int = 0
    urgent: Ticket | None = None
    was_shown: bool = False

    def add(self, runner: Runner, request: Request, listener: Listener[PictureEvent]) -> None:
        """Let a request wait for its turn."""
        waiting = _Waiting(lane=self, runner=runner, request=request, listener=listener)
        self.queue.add(self.order.client, waiting, goes_on=self.has_begun)

    def done(self, drawn: DrawnPicture, picture: GeneratedImage) -> "_Event":
        """Return what is told of a picture."""
        self.num_done += 1
        return self.order.asked, PictureDone(text_index=drawn.text_index, place=drawn.place, picture=picture)

    @property
    def is_done(self) -> bool:
        """Whether all pictures are."""
        return self.num_done == self.order.task.num_kept(len(self.order.asked.seeds))

    def rest(self) -> "Iterator[_Event]":
        """Yield what was drawn, is not kept, and was not shown whole."""
        if self.previews is not None:
            yield from map(_preview, self.previews.rest(self._candidates))

    def forget_previews(self) -> None:
        """Show nothing more."""
        if self.previews is not None:
            for candidate in self._candidates:
                self.previews.end(candidate, is_shown=True)

    @property
    def _candidates(self) -> list[Candidate]:
        return [(self.order.asked, seed) for seed in self.order.asked.seeds]


@dataclass(kw_only=True, eq=False)
class _Waiting:
    """A request of an order, until its result is there."""

    lane: _Lane
    runner: Runner
    request: Request
    listener: Listener[PictureEvent]
    ticket: Ticket | None = None

    def told(self, event: Progressed | Drawn) -> "Iterator[_Event]":
        """Tell the order's caller what comes of it."""
        asked = self.lane.order.asked
        if isinstance(event, Drawn):
            self._end()
        try:
            for each in self.listener(event):
                yield asked, each
        except Exception as error:
            yield asked, OrderFailed(error=error)

    def failed(self, error: Exception) -> "Iterator[_Event]":
        """Tell the order's caller that nothing comes of it."""
        self._end()
        yield self.lane.order.asked, OrderFailed(error=error)

    def _end(self) -> None:
        assert self.ticket is not None, "it was begun"
        self.lane.tickets.discard(self.ticket)
        if self.lane.urgent == self.ticket:
            self.lane.urgent = None
        self.lane.queue.release(self.lane.order.client)


def _decoded_like(lane: _Lane, drawn: DrawnPicture) -> Hashable:
    """Return what pictures share that are decoded together."""
    task = lane.order.task
    return task.model, task.size_pixels, tuple(drawn.codes.shape)


def _preview(shown: Shown[Candidate]) -> _Event:
    (asked, seed), codes, image = shown
    return asked, PicturePreview(text_index=asked.index, text=asked.text, seed=seed, codes=codes, image=image)
