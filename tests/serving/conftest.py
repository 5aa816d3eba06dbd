from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from live import LiveServer, live_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server("--data", tmp_path_factory.mktemp("served")) as started:
        yield started


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def new_client() -> Iterator[Callable[..., openai.OpenAI]]:
    """Return what makes OpenAI's client of a server's address; all are closed at the end."""
    with ExitStack() as stack:

        def new(url: str, **options: Any) -> openai.OpenAI:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", **options)
            return stack.enter_context(client)

        yield new
