"""Shapes in signatures are executed: calls in the tests are checked by jaxtyping and beartype."""

import functools
import os
import ssl
import sys
from collections import Counter

# Threads of one test that wait for each other by counting would take the cores from the tests beside it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import pytest
import torch
from hypothesis import settings

from checked_calls import check_calls, start_test

check_calls("cogview")

# Tiny tensors gain nothing from threads, which wait for each other on a busy machine, and equal bits need an equal
# number of them. Tests of several threads ask for them.
torch.set_num_threads(1)

settings.register_profile("few", max_examples=25, deadline=None)
settings.load_profile("few")

# Each client of a server loads all certificates, which no server of the tests has.
ssl.create_default_context = functools.cache(ssl.create_default_context)

_SLOW_FIXTURES = {"browser", "cluster", "server"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Run in a process more than there are cores, since some tests wait for processes of their own."""
    return 1 + len(os.sched_getaffinity(0)) if sys.platform == "linux" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or a browser slow, and put files with slow tests first, so that workers end together."""
    num_slow: Counter[object] = Counter()
    for item in items:
        if _SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        num_slow[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: -num_slow[item.path])


def pytest_runtest_setup() -> None:
    start_test()
