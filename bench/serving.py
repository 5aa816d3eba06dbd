"""How fast, fair and steady `cogview serve` is, with the bundled model on this machine.

    python bench/serving.py speed             # 16 clients at once, one after the other, and the engine alone
    python bench/serving.py fairness          # first preview beside a client who asks for 40 times 8 pictures
    python bench/serving.py mixed             # ten minutes of 20 mixed clients
    python bench/serving.py kills             # kill -9 of server and engine, twenty times

Each writes bench/results/serving-NAME.json.
"""

import asyncio
import base64
import io
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import torch
import tyro
from PIL import Image

from cogview.files import atomic_write_json
from environment import RESULTS, describe
from served import Served, drawn_alone, quantile, served

TEXTS = (
    "a cat to the left of a tree",
    "two dogs on a yellow background",
    "蓝色背景上的一只猫和一个苹果",
    "an apple above a dog, on a white background",
    "a car above a tree",
    "a fish to the left of a flower",
    "两把伞",
    "three apples",
)


def main(
    what: Literal["speed", "fairness", "mixed", "kills"], /, *, rounds: int = 5, minutes: float = 10.0
) -> None:
    """Measure, print and write the figures as JSON.

    Args:
        what: to measure.
        rounds: of speed and fairness.
        minutes: of mixed clients.
    """
    environment = describe(torch.device("cpu"))
    figures = {
        "speed": lambda: asyncio.run(_speed(rounds)),
        "fairness": lambda: asyncio.run(_fairness(rounds)),
        "mixed": lambda: asyncio.run(_mixed(minutes)),
        "kills": lambda: asyncio.run(_kills()),
    }[what]()
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    path = RESULTS / f"serving-{what}.json"
    atomic_write_json(path, {"benchmark": f"serving {what}", "environment": environment, **figures})
    print(path)


async def _draw(client: httpx.AsyncClient, text: str, seed: int, **fields: Any) -> bytes:
    """Return the pixels of one picture."""
    answer = await client.post("/v1/images/generations", json={"prompt": text, "seed": seed, **fields})
    answer.raise_for_status()
    return _pixels(answer.json()["data"][0]["b64_json"])


def _pixels(file: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(file))).tobytes()


async def _speed(rounds: int) -> dict[str, Any]:
    """Draw 16 pictures at once, one after the other, and by the engine alone, in turns."""
    import cogview

    asked = [(TEXTS[number % len(TEXTS)], 100 + number) for number in range(16)]
    pipe = cogview.load()
    pipe.generate(TEXTS[0], 16)

    def engine_alone() -> float:
        from cogview.generation.options import PictureOptions
        from cogview.generation.picture_stream import picture_events
        from cogview.generation.picture_task import PictureTask

        task = PictureTask.of(pipe.model, PictureOptions(), 1, None, 0)
        started = time.perf_counter()
        prompts = [task.prompts([text], [seed], index)[0] for index, (text, seed) in enumerate(asked)]
        for _ in picture_events(task, prompts):
            pass
        return time.perf_counter() - started

    seconds: dict[str, list[float]] = {"at once": [], "one by one": [], "engine alone": []}
    with tempfile.TemporaryDirectory() as data, served("--data", data) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            pictures: dict[str, list[bytes]] = {}
            for number in range(rounds + 1):
                started = time.perf_counter()
                pictures["at once"] = await asyncio.gather(
                    *(_draw(client, text, seed, user=str(seed)) for text, seed in asked)
                )
                at_once = time.perf_counter() - started
                started = time.perf_counter()
                pictures["one by one"] = [await _draw(client, text, seed) for text, seed in asked]
                one_by_one = time.perf_counter() - started
                alone = engine_alone()
                if number:  # the first warms up
                    for name, value in zip(seconds, (at_once, one_by_one, alone), strict=True):
                        seconds[name].append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "pictures": len(asked),
        "seconds": medians,
        "all": seconds,
        "times_as_fast_as_one_by_one": medians["one by one"] / medians["at once"],
        "overhead": medians["at once"] / medians["engine alone"] - 1,
        "same_pictures": pictures["at once"] == pictures["one by one"],
    }


async def _events(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> AsyncIterator[tuple[float, dict[str, Any]]]:
    """Yield a stream's events with the seconds since it was asked for."""
    started = time.perf_counter()
    body = {"stream": True, "partial_images": 3, **fields}
    async with client.stream("POST", "/v1/images/generations", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                yield time.perf_counter() - started, json.loads(line.removeprefix("data: "))


async def _first_preview(client: httpx.AsyncClient, text: str, seed: int, user: str) -> tuple[float, float]:
    """Return the seconds to the first preview and to the picture; a picture is a preview of itself."""
    first = last = 0.0
    async for seconds, event in _events(client, {"prompt": text, "seed": seed, "user": user}):
        if event["type"] == "error":
            raise RuntimeError(event)
        first, last = first or seconds, seconds
    return first, last


async def _fairness(rounds: int) -> dict[str, Any]:
    """Ask for a picture of an idle server, and beside a client who asked for 40 times 8."""
    idle: list[tuple[float, float]] = []
    beside: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as data, served("--data", data) as server:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as client:
            await asyncio.gather(*(_draw(client, text, 1) for text in TEXTS * 2))  # warm
            for number in range(rounds):
                idle.append(await _first_preview(client, TEXTS[number % 8], number, "small"))
            hog = [
                asyncio.create_task(
                    client.post(
                        "/v1/images/generations",
                        json={"prompt": TEXTS[number % 8], "seed": number, "n": 8, "user": "large"},
                    )
                )
                for number in range(40)
            ]
            await asyncio.sleep(2)
            for number in range(rounds):
                beside.append(await _first_preview(client, TEXTS[number % 8], number, "small"))
                await asyncio.sleep(0.5)
            num_left = sum(not each.done() for each in hog)
            answers = await asyncio.gather(*hog)
    medians = [
        {
            "first preview": statistics.median(first for first, _ in each),
            "picture": statistics.median(last for _, last in each),
        }
        for each in (idle, beside)
    ]
    return {
        "idle": medians[0],
        "beside": medians[1],
        "first_preview_ratio": medians[1]["first preview"] / medians[0]["first preview"],
        "picture_ratio": medians[1]["picture"] / medians[0]["picture"],
        "requests_of_the_large_client_left_at_the_end": num_left,
        "statuses_of_the_large_client": dict(Counter(str(each.status_code) for each in answers)),
        "all": {"idle": idle, "beside": beside},
    }


async def _mixed(minutes: float) -> dict[str, Any]:
    """Let 20 clients do what clients do; some leave, some are slow."""
    end = time.monotonic() + 60 * minutes
    statuses: Counter[str] = Counter()
    firsts: list[float] = []
    wholes: list[float] = []
    memory: list[int] = []
    checked: dict[tuple[str, int], bytes] = {}
    differing = 0

    async def plain(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        nonlocal differing
        text, seed = rng.choice(TEXTS), rng.randrange(4)
        started = time.perf_counter()
        answer = await client.post(
            "/v1/images/generations", json={"prompt": text, "seed": seed, "size": "128x128", "user": user}
        )
        statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            wholes.append(time.perf_counter() - started)
            pixels = _pixels(answer.json()["data"][0]["b64_json"])
            differing += checked.setdefault((text, seed), pixels) != pixels

    async def streamed(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        try:
            first, last = await _first_preview(client, rng.choice(TEXTS), rng.randrange(1000), user)
        except httpx.HTTPStatusError as error:
            statuses[str(error.response.status_code)] += 1
            return
        statuses["200"] += 1
        firsts.append(first)
        wholes.append(last)

    async def leaving(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        try:
            await client.post(
                "/v1/images/generations",
                json={"prompt": rng.choice(TEXTS), "n": 4, "user": user},
                timeout=rng.uniform(0.05, 1.0),
            )
        except httpx.TimeoutException:
            statuses["left"] += 1
        else:
            statuses["200"] += 1

    async def slow(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        async for _ in _events(client, {"prompt": rng.choice(TEXTS), "n": 2, "user": user}):
            await asyncio.sleep(rng.uniform(0.2, 2))
        statuses["200"] += 1

    async def ranked(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        answer = await client.post(
            "/v1/images/generations",
            json={"prompt": rng.choice(TEXTS), "candidates": 6, "n": 2, "user": user},
        )
        statuses[str(answer.status_code)] += 1

    async def other(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        file = io.BytesIO()
        Image.new("RGB", (128, 128), (rng.randrange(256), 200, 90)).save(file, "PNG")
        path = rng.choice(["captions", "upscale", "edits"])
        fields = {"prompt": rng.choice(TEXTS), "force": "true", "region": "lower", "user": user}
        answer = await client.post(f"/v1/images/{path}", data=fields, files={"image": file.getvalue()})
        statuses[str(answer.status_code)] += 1

    async def job(client: httpx.AsyncClient, rng: random.Random, user: str) -> None:
        headers = {"X-Client": user}
        answer = await client.post("/api/jobs", json={"prompt": rng.choice(TEXTS), "n": 2}, headers=headers)
        statuses[str(answer.status_code)] += 1
        if answer.status_code == 201:
            async with client.stream("GET", f"/api/jobs/{answer.json()['id']}/events") as events:
                async for line in events.aiter_lines():
                    if '"type":"done"' in line:
                        break

    kinds = [plain] * 6 + [streamed] * 5 + [leaving] * 3 + [slow] * 2 + [ranked] * 2 + [other, job]

    async def live(number: int, url: str) -> None:
        rng, user = random.Random(number), f"user-{number}"
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            while time.monotonic() < end:
                await kinds[number](client, rng, user)
                await asyncio.sleep(rng.uniform(0, 1))

    async def watch(server: Served) -> None:
        while time.monotonic() < end:
            memory.append(server.resident_bytes())
            await asyncio.sleep(5)

    with tempfile.TemporaryDirectory() as data, served("--data", data) as server:
        await asyncio.gather(watch(server), *(live(number, server.url) for number in range(len(kinds))))
        metrics = httpx.get(f"{server.url}/metrics").text
    wanted = drawn_alone([{"prompt": text, "seed": seed, "size": "128x128"} for text, seed in checked])
    as_alone = sum(one == other for one, other in zip(checked.values(), wanted, strict=True))
    quarter = max(len(memory) // 4, 1)
    return {
        "minutes": minutes,
        "clients": len(kinds),
        "answers": dict(statuses),
        "server_errors": sum(num for status, num in statuses.items() if status.startswith("5")),
        "seconds_to_first_preview": {
            name: quantile(firsts, share) for name, share in (("p50", 0.5), ("p95", 0.95))
        },
        "seconds_to_picture": {
            name: quantile(wholes, share) for name, share in (("p50", 0.5), ("p95", 0.95))
        },
        "gigabytes": {
            "second quarter": statistics.median(memory[quarter : 2 * quarter]) / 1e9,
            "last quarter": statistics.median(memory[-quarter:]) / 1e9,
            "most": max(memory) / 1e9,
        },
        "pictures_checked": len(checked),
        "as_drawn_alone": as_alone,
        "differing_from_each_other": differing,
        "figures": [
            line for line in metrics.splitlines() if line.startswith(("cogview_jobs", "cogview_pictures"))
        ],
    }


async def _kills() -> dict[str, Any]:
    """Kill the server or its engine in mid-load, twenty times, and look for what was told to be done."""
    rng = random.Random(0)
    known: dict[str, dict[int, bytes]] = {}
    asked: list[str] = []
    ready_seconds: dict[str, list[float]] = {"server": [], "engine": []}
    headers = {"X-Client": "bench"}
    with tempfile.TemporaryDirectory() as data, served("--data", data) as server:
        for number in range(20):
            async with httpx.AsyncClient(base_url=server.url, timeout=60, headers=headers) as client:
                for text in rng.sample(TEXTS, 4):
                    body = {"prompt": text, "n": 4, "seed": rng.randrange(1000)}
                    asked.append((await client.post("/api/jobs", json=body)).json()["id"])
                await asyncio.sleep(rng.uniform(0.5, 4))
                for each in asked:
                    await _note(client, each, known)
            whom: Literal["server", "engine"] = "server" if number % 2 else "engine"
            pids = server.pids()
            os.kill(pids[0] if whom == "server" else pids[1], signal.SIGKILL)
            if whom == "server":
                assert server.process is not None
                server.process.wait()
                server.start()  # as a service manager does
            else:
                await asyncio.sleep(0.2)
            ready_seconds[whom].append(server.wait_ready())
        lost, states = 0, Counter[str]()
        async with httpx.AsyncClient(base_url=server.url, timeout=60, headers=headers) as client:
            for each in asked:
                async with client.stream("GET", f"/api/jobs/{each}/events") as events:
                    async for _ in events.aiter_lines():
                        pass
                now: dict[str, dict[int, bytes]] = {}
                states[await _note(client, each, now)] += 1
                lost += sum(now[each].get(place) != file for place, file in known.get(each, {}).items())
            num_pictures = [len((await client.get(f"/api/jobs/{each}")).json()["pictures"]) for each in asked]
    return {
        "kills": sum(map(len, ready_seconds.values())),
        "jobs": len(asked),
        "states": dict(states),
        "pictures_told_before_a_kill": sum(map(len, known.values())),
        "of_them_lost_or_changed": lost,
        "pictures": sum(num_pictures),
        "wanted_pictures": 4 * len(asked),
        "seconds_until_ready": {
            whom: {"median": statistics.median(values), "most": max(values)}
            for whom, values in ready_seconds.items()
        },
    }


async def _note(client: httpx.AsyncClient, job_id: str, known: dict[str, dict[int, bytes]]) -> str:
    """Read a job's pictures that are told to be done, and return its state."""
    job = (await client.get(f"/api/jobs/{job_id}")).json()
    files = known.setdefault(job_id, {})
    for picture in job["pictures"]:
        answer = await client.get(picture["url"])
        files[picture["place"]] = answer.content if answer.status_code == 200 else b""
    return str(job["state"])


if __name__ == "__main__":
    tyro.cli(main)
