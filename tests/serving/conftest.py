from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from live import LiveServer, live_server

from chromium import SECONDS, chromium


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for the tests of a file; while it runs, no test may have an event loop of its own."""
    with chromium() as started:
        yield started


@pytest.fixture
def complaints() -> list[str]:
    """What pages say in vain, and whatever they ask other servers for."""
    return []


@pytest.fixture
def opened(browser: Any, server: LiveServer, complaints: list[str]) -> Iterator[Callable[..., Any]]:
    """Open the page as somebody new, and see that nothing was amiss when all is done."""
    contexts = []

    def open_page(path: str = "/", **options: Any) -> Any:
        settings = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "reduced_motion": "reduce"}
        context = browser.new_context(**settings | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: message.type in ("error", "warning") and complaints.append(message.text),
        )
        page.on("request", lambda request: _is_own(request.url, server) or complaints.append(request.url))
        page.goto(server.url + path)
        page.locator("body[data-ready]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _is_own(url: str, server: LiveServer) -> bool:
    return url.startswith((f"{server.url}/", "blob:", "data:"))
