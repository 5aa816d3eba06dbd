"""Numbers of threads for tests of decoding."""

from collections.abc import Iterator

import pytest

from cogview.decoding.threads import threads


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with one of PyTorch's threads, and with two."""
    with threads(request.param):
        yield
