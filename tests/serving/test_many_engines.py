import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fake_link import FACTS, PIXELS, FakeLink, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from live import LiveServer, live_server

from cogview.cli.serve import engine_options, server_options
from cogview.errors import UsageError
from cogview.serving.app import application
from cogview.serving.engine_link import EngineLink, LinkListener
from cogview.serving.engine_pool import MAX_DEATHS
from cogview.serving.jobs import Job, Jobs
from cogview.serving.messages import Done, Failed, Picture, Preview, Ready, Report, StartFailed
from cogview.serving.options import EngineOptions, ServerOptions

OPTIONS = ServerOptions()


def with_engines(num: int, check: Callable[[Jobs, list[FakeLink]], Awaitable[None]]) -> list[str]:
    """Check jobs over engines that are moved by hand, and return what was logged; `ready` for all engines at once."""
    told: list[str] = []

    async def run() -> None:
        jobs = Jobs(
            OPTIONS,
            [FakeLink] * num,
            on_ready=lambda: told.append("ready"),
            on_start_failed=lambda failure: told.append(failure.message),
            log=told.append,
        )
        jobs.start()
        links = [link for link in jobs.links if isinstance(link, FakeLink)]
        await check(jobs, links)
        await jobs.close()
        assert all(link.is_closed for link in links)

    asyncio.run(run())
    return told


def events_of(job: Job) -> list[type]:
    return [type(event) for event in job.log]


def test_a_job_goes_to_the_engine_with_the_least_to_do() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        for link in links:
            link.warm()
        first, second, third = (jobs.submit(draw(num), ("a",)) for num in (3, 1, 1))
        assert [set(link.has) for link in links] == [{first.number}, {second.number, third.number}]

    with_engines(2, check)


def test_a_dead_engine_gets_nothing_while_another_lives() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        for link in links:
            link.warm()
        jobs.submit(draw(4), ("a",))
        links[1].die()
        second = jobs.submit(draw(), ("a",))
        assert second.number in links[0].has
        assert jobs.is_ready, "one engine is enough"

    with_engines(2, check)


def test_what_waits_without_any_engine_is_worked_on_by_the_first_that_is_ready() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        begun = {jobs.submit(draw(), ("a",)).number for _ in range(6)}
        assert not jobs.is_ready
        links[1].warm()
        assert set(links[1].has) == begun
        links[0].warm()
        assert len(links[0].has) == 2, "the last ones, for which the other had no places"
        assert set(links[0].has) == set(sorted(begun)[4:])

    assert with_engines(2, check) == ["ready"]


def test_an_engine_that_comes_back_takes_over_what_waits() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        for link in links:
            link.warm()
        for _ in range(20):
            jobs.submit(draw(), ("a",))
        links[0].die()
        assert len(links[1].has) == 20
        links[0].warm()
        assert [len(link.has) for link in links] == [10, 10]

    with_engines(2, check)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("bwdfc"), st.integers(0, 9)), max_size=40))
@pytest.mark.slow
def test_every_job_is_with_one_engine_and_ends_once(num: int, moves: list[tuple[str, int]]) -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        begun: list[Job] = []
        for move, number in moves:
            link = links[number % num]
            if move == "b":
                begun.append(jobs.submit(draw(1 + number % 6), (str(number % 3),)))
            elif move == "w" and not link.is_ready:
                link.warm()
            elif move == "d" and link.is_ready and all(job.num_deaths + 1 < MAX_DEATHS for job in begun):
                link.die()
            elif move == "f" and link.has:
                link.finish(min(link.has))
            elif move == "c" and begun:
                jobs.cancel(begun[number % len(begun)])
            wanted = sorted(job.number for job in begun if not job.is_over)
            held = sorted(number for link in links for number in link.has)
            assert held == (wanted if jobs.is_ready else [])
            for one in links:
                costs = [len(job.seeds) for job in one.has.values()]  # type: ignore[union-attr]
                is_full = sum(costs) > 2 * (FACTS.max_batch + max(costs, default=0))
                assert not (is_full and any(each.is_ready and not each.has for each in links))
        for link in links:
            if not link.is_ready:
                link.warm()
        while held := [(link, number) for link in links for number in link.has]:
            held[0][0].finish(held[0][1])
        for job in begun:
            assert job.is_over
            pictures = [event.seed for event in job.log if isinstance(event, Picture)]
            assert job.state == "cancelled" or pictures == list(job.work.seeds)  # type: ignore[union-attr]
        assert jobs.num_jobs == jobs.num_waiting == 0

    with_engines(num, check)


def test_a_job_that_kills_engines_is_given_up_and_harms_no_other_engine() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        for link in links:
            link.warm()
        poison = jobs.submit(draw(), ("a",))
        for _ in range(MAX_DEATHS):
            (holder,) = (link for link in links if poison.number in link.has)
            holder.die()
        assert poison.state == "failed"
        assert events_of(poison) == [Failed]
        assert not any(link.has for link in links)
        assert jobs.is_ready

    with_engines(4, check)


def test_what_an_engine_tells_of_a_job_that_another_has_by_now_is_not_heard() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        for link in links:
            link.warm()
        job = jobs.submit(draw(), ("a",))
        links[0].die()
        links[0].tell(job.number, Done())
        assert not job.is_over
        links[1].finish(job.number)
        assert job.state == "done"

    with_engines(2, check)


def test_a_picture_that_is_there_already_is_told_once_however_often_it_is_drawn() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        for link in links:
            link.warm()
        job = jobs.submit(draw(2), ("a",))
        links[0].tell(job.number, links[0].picture(job.number))
        links[0].die()
        links[1].tell(job.number, Preview(candidate=0, share=0.1, pixels=PIXELS))
        assert events_of(job)[-1] is Picture, "it is done: there is no preview any more"
        links[1].finish(job.number)
        assert [event.seed for event in job.log if isinstance(event, Picture)] == [0, 1]

    with_engines(2, check)


def test_health_is_that_of_the_server_not_of_its_worst_engine() -> None:
    async def check(jobs: Jobs, links: list[FakeLink]) -> None:
        transport = httpx.ASGITransport(application(OPTIONS, jobs))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/readyz")).status_code == 503
            links[1].warm()
            links[0].silent_seconds = 1e6
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/livez")).status_code == 200
            links[1].silent_seconds = 1e6
            assert (await client.get("/livez")).status_code == 503
            models = (await client.get("/v1/models")).json()["data"]
            assert [each["id"] for each in models] == ["fake"], "the facts of the one that is known"

    with_engines(2, check)


def hear(link: EngineLink, report: Report) -> None:
    """Let a link hear something without a process."""
    with socket.socket() as link._socket:
        link._receive(link._socket, report)


def test_an_engine_that_ran_and_cannot_begin_again_does_not_end_the_server() -> None:
    told: list[str] = []
    listener = LinkListener(
        on_report=lambda _: None,
        on_ready=lambda: told.append("ready"),
        on_lost=lambda: None,
        on_start_failed=lambda failure: told.append(f"hopeless: {failure.message}"),
        log=told.append,
    )
    failure = StartFailed(message="no such device", is_usage=True)
    hear(EngineLink(EngineOptions(), listener), failure)
    link = EngineLink(EngineOptions(), listener)
    hear(link, Ready(facts=FACTS))
    hear(link, failure)
    assert told == ["hopeless: no such device", "ready", "the engine cannot start: no such device"]


@pytest.mark.parametrize("site", ["example.org", "https://example.org/", "https://example.org/draw"])
def test_what_no_browser_sends_as_its_site_is_no_site(site: str) -> None:
    with pytest.raises(UsageError, match=site):
        server_options("127.0.0.1", (), None, (), ("*", "https://example.org:8443", site), None)


@pytest.mark.parametrize("option", [["--memory", "1MiB"], ["--model", "nowhere"]])
@pytest.mark.slow
def test_what_no_engine_can_begin_with_ends_the_server_with_one_line(
    tmp_path: Path, option: list[str]
) -> None:
    command = [sys.executable, "-m", "cogview", "serve", "--port", "0", "--data", tmp_path, *option]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode in (1, 2)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("cogview: error: ")
    assert option[1] in line


def test_an_engine_that_loads_is_not_silent() -> None:
    listener = LinkListener(
        on_report=lambda _: None,
        on_ready=lambda: None,
        on_lost=lambda: None,
        on_start_failed=lambda _: None,
        log=lambda _: None,
    )
    link = EngineLink(EngineOptions(), listener)
    assert link.silent_seconds == 0
    hear(link, Ready(facts=FACTS))
    time.sleep(0.01)
    assert link.silent_seconds > 0


def options_for(
    device: str | None = None, devices: tuple[str, ...] = (), num_engines: int = 1
) -> list[EngineOptions]:
    return engine_options(
        None,
        device,
        devices,
        num_engines,
        dtype=None,
        max_batch=4,
        memory=None,
        cache="auto",
        kernels="native",
    )


def test_each_device_has_its_engines_and_they_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [each.device for each in options_for(devices=("cuda:0", "cuda:1"))] == ["cuda:0", "cuda:1"]
    assert [each.num_threads for each in options_for("cpu", num_engines=4)] == [2] * 4
    assert [each.num_threads for each in options_for("cpu", num_engines=16)] == [1] * 16
    assert options_for()[0].num_threads is None
    assert options_for()[0].kernels == "native"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert options_for("cpu", num_engines=2)[0].num_threads is None, "what the user set holds"


@pytest.mark.parametrize(
    ("device", "devices", "num_engines", "complaint"),
    [
        ("cpu", ("cuda:0",), 1, "--device or --devices, not both"),
        (None, ("cuda:0", "cuda:0"), 1, "names a device twice"),
        (None, (), 0, "--engines must be at least 1, got 0"),
    ],
)
def test_impossible_engines_are_refused(
    device: str | None, devices: tuple[str, ...], num_engines: int, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        options_for(device, devices, num_engines)


def asked(server: LiveServer, seed: int, num: int = 1) -> list[bytes]:
    """Return the files of pictures."""
    body = {"prompt": "a red apple", "n": num, "seed": seed}
    answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]]


@pytest.mark.slow
def test_an_engine_is_killed_under_load_and_nothing_is_lost(server: LiveServer, tmp_path: Path) -> None:
    """Of two engines; the pictures are those of a server with one."""
    with live_server("--data", tmp_path, "--engines", "2") as two, ThreadPoolExecutor(4) as pool:
        before = two.engine_pids()
        assert len(before) == 2
        futures = [pool.submit(asked, two, 100 * seed, 2) for seed in range(4)]
        time.sleep(0.5)
        os.kill(before[0], signal.SIGKILL)
        assert not all(future.done() for future in futures)
        drawn = [future.result() for future in futures]
        assert drawn == [asked(server, 100 * seed, 2) for seed in range(4)]
        assert before[1] in two.engine_pids(), "the other went on"
        end = time.monotonic() + 60
        while len(two.engine_pids()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(two.engine_pids()) == 2, "another was begun"
        assert httpx.get(f"{two.url}/readyz").status_code == 200
