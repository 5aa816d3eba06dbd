"""The machine's own Chromium, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60
"""A busy machine is slow, and only a failure waits that long."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser, or skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        path = found or started.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium is installed: apt-get install chromium, or playwright install chromium")
        browser = started.chromium.launch(
            executable_path=path, args=["--disable-gpu", "--disable-quic"], timeout=4 * SECONDS * 1000
        )
        playwright.expect.set_options(timeout=SECONDS * 1000)
        yield browser
        browser.close()
