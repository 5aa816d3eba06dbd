"""The two ends of an engine on a cluster, in one process: no Ray is needed for these."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_link import FakeLink, draw

from cogview.errors import CogViewError, UsageError
from cogview.serving.engine_replica import EngineReplica
from cogview.serving.jobs import Jobs
from cogview.serving.messages import Picture, Preview, StartJob
from cogview.serving.options import EngineOptions, ServerOptions
from cogview.serving.ray_link import RayLink


class Call:
    """The answers to a call in the same process; one that is broken fails, as of a replica that died."""

    def __init__(self, answers: AsyncGenerator[Any, None]) -> None:
        self._answers = answers
        self._taking: asyncio.Task[Any] | None = None
        self.is_cancelled = self.is_broken = False

    def __aiter__(self) -> "Call":
        return self

    async def __anext__(self) -> Any:
        if self.is_broken:
            raise ConnectionError("the actor died")
        self._taking = asyncio.ensure_future(anext(self._answers))
        try:
            return await asyncio.shield(self._taking)
        except asyncio.CancelledError:
            if self.is_broken:
                raise ConnectionError("the actor died") from None
            raise

    def cancel(self) -> None:
        """End the call at the other end."""
        self.is_cancelled = True
        if self._taking is not None and not self._taking.done():
            self._taking.cancel()
        else:
            self._closing = asyncio.ensure_future(self._answers.aclose())

    def lose(self) -> None:
        """Break it, at the server's end alone."""
        self.is_broken = True
        if self._taking is not None:
            self._taking.cancel()


@dataclass(eq=False)
class Calls:
    """Calls a replica of the same process."""

    replica: EngineReplica
    watches: list[Call] = field(default_factory=list)
    works: list[Call] = field(default_factory=list)
    is_silent: bool = False

    def watch(self, session: str) -> Call:
        self.watches.append(Call(silence() if self.is_silent else self.replica.watch(session)))
        return self.watches[-1]

    def work(self, session: str, command: StartJob) -> Call:
        self.works.append(Call(self.replica.work(session, command)))
        return self.works[-1]


async def silence() -> AsyncGenerator[Any, None]:
    await asyncio.sleep(1e6)
    yield


@dataclass(eq=False)
class World:
    """A server, and a replica that has an engine moved by hand."""

    jobs: Jobs
    link: RayLink
    calls: Calls
    engine: FakeLink
    logged: list[str]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.005)

    async def held(self, num: int = 1) -> list[int]:
        """Return the engine's numbers of its jobs, once it has so many."""
        await self.until(lambda: len(self.engine.has) == num)
        return list(self.engine.has)


def in_world(check: Callable[[World], Awaitable[None]], turn: float = 30.0, grace: float = 30.0) -> list[str]:
    logged: list[str] = []

    async def run() -> None:
        engines: list[FakeLink] = []

        def new_link(options: EngineOptions, listener: Any) -> FakeLink:
            engines.append(FakeLink(listener))
            return engines[0]

        replica = EngineReplica(EngineOptions(), new_link, turn_seconds=turn, grace_seconds=grace)
        starting = asyncio.create_task(replica.start())
        await asyncio.sleep(0)
        engines[0].warm()
        await starting
        calls = Calls(replica)
        jobs = Jobs(ServerOptions(), [lambda listener: RayLink(calls, listener)], log=logged.append)
        jobs.start()
        (link,) = jobs.links
        assert isinstance(link, RayLink)
        world = World(jobs, link, calls, engines[0], logged)
        await world.until(lambda: jobs.is_ready)
        await check(world)
        await jobs.close()
        await world.until(lambda: not engines[0].has)

    asyncio.run(run())
    return logged


def test_what_the_engine_tells_arrives_in_order_and_pictures_before_the_end() -> None:
    async def check(world: World) -> None:
        job = world.jobs.submit(draw(3), ("a",))
        (number,) = await world.held()
        world.engine.tell(number, world.engine.picture(number))
        await world.until(lambda: any(isinstance(event, Picture) for event in job.log))
        assert not job.is_over
        world.engine.finish(number)
        await world.until(lambda: job.is_over)
        assert job.state == "done"
        assert [event.place for event in job.log if isinstance(event, Picture)] == [0, 1, 2]
        assert not any(isinstance(event, Preview) for event in job.log), "outdated"
        await world.until(lambda: not world.link._tasks)

    assert in_world(check) == []


def test_a_cancelled_job_is_stopped_in_the_engine_and_no_other() -> None:
    async def check(world: World) -> None:
        first, second = (world.jobs.submit(draw(), ("a",)) for _ in range(2))
        await world.held(2)
        world.jobs.cancel(first)
        (number,) = await world.held(1)
        world.engine.finish(number)
        await world.until(lambda: second.is_over)
        assert (first.state, second.state) == ("cancelled", "done")

    assert in_world(check) == []


@pytest.mark.parametrize("what", ["watches", "works"])
def test_a_call_that_breaks_loses_no_job(what: str) -> None:
    """All are given again in a new session; what the old one asked for is stopped, or the engine would draw twice."""

    async def check(world: World) -> None:
        jobs = [world.jobs.submit(draw(), ("a",)) for _ in range(3)]
        old = await world.held(3)
        getattr(world.calls, what)[-1].lose()
        await world.until(lambda: len(world.engine.has) == 3 and not set(old) & set(world.engine.has))
        for number in list(world.engine.has):
            world.engine.finish(number)
        await world.until(lambda: all(job.is_over for job in jobs))
        assert {job.state for job in jobs} == {"done"}
        assert {job.num_deaths for job in jobs} == {1}

    logged = in_world(check)
    assert len(logged) == 1
    assert "the actor died" in logged[0]


def test_an_engine_that_dies_in_its_replica_gets_its_jobs_again() -> None:
    async def check(world: World) -> None:
        job = world.jobs.submit(draw(), ("a",))
        await world.held()
        world.engine.die()
        await world.until(lambda: not world.jobs.is_ready)
        world.engine.warm()
        (number,) = await world.held()
        world.engine.finish(number)
        await world.until(lambda: job.is_over)
        assert job.state == "done"

    assert in_world(check) == ["an engine was lost (its process has ended); waiting for another"]


def test_a_session_outlives_the_calls_that_tell_of_it() -> None:
    async def check(world: World) -> None:
        job = world.jobs.submit(draw(2), ("a",))
        (number,) = await world.held()
        await world.until(lambda: len(world.calls.watches) > 3)
        world.engine.finish(number)
        await world.until(lambda: job.is_over)
        assert job.state == "done"
        assert world.link.num_starts == 1

    assert in_world(check, turn=0.02, grace=5.0) == []


def test_jobs_of_a_server_that_vanished_are_stopped() -> None:
    """Ray lets a stream go on whose caller was killed: nobody calls `watch` again, and that is how it is noticed."""

    async def vanish(world: World) -> None:
        async def deaf() -> None:
            async for _ in world.calls.replica.watch("another"):
                pass

        async def listen() -> None:
            async for _ in world.calls.replica.work("another", StartJob(number=1, client=("b",), job=draw())):
                pass

        watching = asyncio.create_task(deaf())
        await world.until(lambda: "another" in world.calls.replica._sessions)
        working = asyncio.create_task(listen())
        await world.held()
        await watching
        assert world.engine.has, "there is time to call again"
        await working
        assert not world.engine.has

    assert in_world(vanish, turn=0.2, grace=0.5) == []


def test_a_replica_that_says_nothing_is_lost() -> None:
    async def check(world: World) -> None:
        job = world.jobs.submit(draw(), ("a",))
        (lost,) = await world.held()
        world.calls.is_silent = True
        world.link._max_silent_seconds = 0.05  # holds from the next call on
        await world.until(lambda: not world.jobs.is_ready)
        world.link._max_silent_seconds = 20.0  # the fake engine never says that it is alive
        world.calls.is_silent = False
        world.calls.watches[-1].lose()
        await world.until(lambda: bool(world.engine.has) and lost not in world.engine.has)
        (number,) = world.engine.has
        world.engine.finish(number)
        await world.until(lambda: job.is_over)
        assert job.state == "done"

    (logged,) = in_world(check, turn=0.2)
    assert "TimeoutError" in logged


def failing(move: Callable[[FakeLink], None]) -> EngineReplica:
    """Return a replica whose engine does something else than begin."""
    replica: list[EngineReplica] = []

    async def run() -> None:
        engines: list[FakeLink] = []

        def new_link(options: EngineOptions, listener: Any) -> FakeLink:
            engines.append(FakeLink(listener))
            return engines[0]

        replica.append(EngineReplica(EngineOptions(), new_link))
        starting = asyncio.create_task(replica[0].start())
        await asyncio.sleep(0)
        move(engines[0])
        try:
            await starting
        finally:
            assert engines[0].is_closed

    asyncio.run(run())
    return replica[0]


def test_a_model_that_cannot_be_loaded_is_told_in_its_words() -> None:
    with pytest.raises(UsageError, match="no model"):
        failing(lambda engine: engine.fail("there is no model here", is_usage=True))


def test_an_engine_that_never_begins_ends_its_replica() -> None:
    def die_often(engine: FakeLink) -> None:
        for _ in range(3):
            engine.die()
            engine.start()

    with pytest.raises(CogViewError, match="3 times"):
        failing(die_often)


def test_a_replica_is_unwell_while_its_engine_cannot_be_begun_anew() -> None:
    async def check(world: World) -> None:
        replica = world.calls.replica
        replica.check_health()
        for _ in range(3):
            world.engine.die()
            world.engine.start()
        with pytest.raises(CogViewError, match="3 times"):
            replica.check_health()
        world.engine.warm()
        replica.check_health()

    in_world(check)


def test_jobs_of_two_servers_are_told_to_the_right_one() -> None:
    """While Ray replaces the web application, there are two for a while, and both number their jobs from 1."""

    async def check(world: World) -> None:
        told: list[Any] = []
        other = Calls(world.calls.replica)
        others = Jobs(ServerOptions(), [lambda listener: RayLink(other, listener)], log=told.append)
        others.start()
        await world.until(lambda: others.is_ready)
        ours, theirs = world.jobs.submit(draw(), ("a",)), others.submit(draw(2, first=7), ("a",))
        assert ours.number == theirs.number
        for number in await world.held(2):
            world.engine.finish(number)
        await world.until(lambda: ours.is_over and theirs.is_over)
        seeds = [[event.seed for event in job.log if isinstance(event, Picture)] for job in (ours, theirs)]
        assert seeds == [[0], [7, 8]]
        await others.close()
        assert told == []

    assert in_world(check) == []
