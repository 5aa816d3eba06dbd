"""Clients that leave, come again, or are too many, with an engine that draws when it is told to."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from still_engine import BLACK, StillServer, still_server, until

from cogview.serving.messages import Picture, Preview
from cogview.serving.options import ServerOptions

NewClient: TypeAlias = Callable[..., openai.OpenAI]


@pytest.fixture
def still() -> Iterator[StillServer]:
    with still_server(ServerOptions(max_jobs=2, max_client_share=1.0)) as server:
        yield server


def generate(client: openai.OpenAI) -> openai.types.ImagesResponse:
    return client.images.generate(prompt="a cat", n=2)


def stream(client: openai.OpenAI) -> list[Any]:
    with client.images.generate(prompt="a cat", stream=True, partial_images=1) as events:
        return list(events)


def progress_of(server: StillServer, name: str) -> float:
    answer = httpx.get(f"{server.url}/sdapi/v1/progress", headers={"X-Client": name}).json()
    return float(answer["progress"])


@pytest.mark.parametrize(("ask", "num_tries"), [(generate, 2), (stream, 1)])  # a stream is not begun again
@pytest.mark.slow
def test_each_try_of_a_client_that_waits_too_short_is_cancelled(
    still: StillServer, new_client: NewClient, ask: Callable[[openai.OpenAI], object], num_tries: int
) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(new_client(still.url, timeout=0.3, max_retries=1))
    until(lambda: still.jobs.num_jobs == 0)
    assert still.link.cancelled == still.link.begun
    assert len(still.link.begun) == num_tries


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {"prompt": "a cat"}),
        ("/v1/images/generations", {"prompt": "a cat", "stream": True}),
        ("/sdapi/v1/txt2img", {"prompt": "a cat"}),
    ],
)
def test_a_client_that_leaves_is_noticed_while_much_is_told_of_its_job(
    still: StillServer, path: str, body: dict[str, Any]
) -> None:
    host = urlsplit(still.url)
    head = f"POST {path} HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Type: application/json\r\n"
    content = json.dumps(body).encode()
    with socket.create_connection((host.hostname, host.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        until(lambda: bool(still.link.begun))
    end = time.monotonic() + 10
    while not still.link.cancelled and time.monotonic() < end:
        still.link.tell(still.link.begun[0], Preview(candidate=0, share=0.5, pixels=BLACK))
        time.sleep(0.05)  # more often than anybody looks whether the client is there
    assert still.link.cancelled == still.link.begun


@pytest.mark.slow
def test_a_full_queue_tells_when_to_come_again_and_the_client_does(
    still: StillServer, new_client: NewClient
) -> None:
    statuses: list[int] = []
    hooks = {"response": [lambda response: statuses.append(response.status_code)]}
    patient = new_client(still.url, max_retries=1, http_client=openai.DefaultHttpxClient(event_hooks=hooks))
    hasty = new_client(still.url, max_retries=0)
    with ThreadPoolExecutor() as pool:
        first = [pool.submit(generate, new_client(still.url)) for _ in range(2)]
        until(lambda: len(still.link.begun) == 2)
        with pytest.raises(openai.RateLimitError) as error:
            generate(hasty)
        assert error.value.code == "queue_full"
        assert 1 <= int(error.value.response.headers["retry-after"]) <= 60
        later = pool.submit(generate, patient)
        until(lambda: statuses == [429])
        for number in list(still.link.begun):
            still.link.draw(number)
        until(lambda: len(still.link.begun) == 3)
        still.link.draw(still.link.begun[2])
        assert all(len(each.result().data or []) == 2 for each in [*first, later])


def test_a_server_that_ends_answers_so_that_clients_come_again(
    still: StillServer, new_client: NewClient
) -> None:
    still.jobs.is_draining = True
    with pytest.raises(openai.InternalServerError) as error:
        generate(new_client(still.url, max_retries=0))
    assert error.value.status_code == 503
    assert error.value.code == "draining"
    assert int(error.value.response.headers["retry-after"]) >= 1


def test_interrupt_stops_the_requests_of_whoever_asks_alone(still: StillServer) -> None:
    def ask(name: str) -> dict[str, Any]:
        answer = httpx.post(
            f"{still.url}/sdapi/v1/txt2img", json={"prompt": "a cat", "n_iter": 2}, headers={"X-Client": name}
        )
        return {"status": answer.status_code, **answer.json()}

    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(ask, "a")
        until(lambda: len(still.link.begun) == 1)
        other = pool.submit(ask, "b")
        until(lambda: len(still.link.begun) == 2)
        number = still.link.begun[0]
        seed = still.link.works[number].seeds[0]
        still.link.tell(number, Picture(place=0, seed=seed, pixels=BLACK))
        until(lambda: progress_of(still, "a") == 0.5)
        httpx.post(f"{still.url}/sdapi/v1/interrupt", headers={"X-Client": "a"})
        answer = stopped.result()
        assert still.link.cancelled == still.link.begun[:1]
        still.link.draw(still.link.begun[1])
        assert len(other.result()["images"]) == 2
    assert answer["status"] == 200
    assert len(answer["images"]) == 1  # what was done is kept
    assert json.loads(answer["info"])["interrupted"] is True
