from collections.abc import Iterator

import pytest
from live import LiveServer, live_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server("--data", tmp_path_factory.mktemp("served")) as started:
        yield started
