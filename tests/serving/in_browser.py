"""What users do with the page in a browser."""

from typing import Any

import httpx
import pytest
from live import LiveServer

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def ask(
    page: Any, text: str, *, n: int, candidates: int = 0, seed: int | None = None, is_taken: bool = True
) -> None:
    """Ask for pictures as users do, and wait until the page shows the job, if it is taken."""
    before = page.locator("#stage").get_attribute("data-job")
    page.get_by_label("What to draw").fill(text)
    if page.locator("#settings").is_hidden():
        page.get_by_role("button", name="Settings").click()
    page.get_by_label("Pictures", exact=True).select_option(str(n))
    page.get_by_label("Best of").select_option(str(candidates))
    page.get_by_label("Seed").fill("" if seed is None else str(seed))
    page.get_by_role("button", name="Generate").click()
    if is_taken:
        page.locator(f"#stage[data-job]:not([data-job='{before}'])").wait_for()


def done(page: Any, count: int) -> list[int]:
    """Wait until pictures are there, and return their seeds in order."""
    tiles = page.locator(".tile:not(.growing)")
    playwright.expect(page.locator(".stage-tools[data-shown=over]")).to_be_visible()
    playwright.expect(tiles).to_have_count(count)
    return [int(tile.get_attribute("data-seed")) for tile in tiles.all()]


def newest(page: Any, server: LiveServer) -> dict[str, Any]:
    """Return the newest job of a page's user, as the server tells it."""
    client = page.evaluate("localStorage.getItem('cogview-client')")
    answer = httpx.get(f"{server.url}/api/jobs", headers={"X-Client": client})
    (first, *_) = answer.json()["data"]
    return first
