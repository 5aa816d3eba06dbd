"""The page in a real browser, over a real server."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from in_browser import ask, done, newest, playwright
from live import LiveServer
from PIL import Image

from cogview.image.picture_file import picture_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TEXT = "a red cat above a dog"


def test_the_best_come_first_and_the_newest_job_is_there_again(
    opened: Callable[..., Any], server: LiveServer
) -> None:
    page = opened(reduced_motion="no-preference")
    page.evaluate(
        "() => { window.grew = []; const look = () => {"
        " for (const each of document.querySelectorAll('.tile.growing img[src^=\"data:image/webp\"]'))"
        " window.grew.push(Number(each.closest('.tile').dataset.seed)) };"
        " new MutationObserver(look).observe(document.querySelector('#stage'),"
        " { subtree: true, childList: true, attributes: true }) }"
    )
    ask(page, TEXT, n=2, candidates=4, seed=3)
    seeds = done(page, 2)
    grew = set(page.evaluate("window.grew"))
    assert grew
    assert grew <= {3, 4, 5, 6}
    job = newest(page, server)
    assert seeds == [picture["seed"] for picture in job["pictures"]]
    losses = [picture["facts"]["caption_loss"] for picture in job["pictures"]]
    assert losses == sorted(losses)
    assert set(seeds) <= set(range(3, 7))
    assert page.locator(".badge").all_inner_texts() == ["1", "2"]
    assert page.get_by_role("status").filter(has_text="2 pictures are done").count() == 1
    assert page.locator(".tile img").first.get_attribute("alt") == f"{TEXT}: picture 1 of 2"

    page.reload()
    assert done(page, 2) == seeds
    ask(page, "a balloon on a blue background", n=1)
    done(page, 1)
    search = page.get_by_role("searchbox", name="Search your pictures")
    playwright.expect(page.locator(".work")).to_have_count(1)
    search.fill("nothing like it")
    playwright.expect(page.get_by_text("No picture of yours has these words.")).to_be_visible()
    search.fill("dog cat")
    playwright.expect(page.locator(".work")).to_have_count(1)
    page.locator(".card-button").click()
    assert done(page, 2) == seeds
    playwright.expect(page.get_by_role("heading", name=TEXT)).to_be_focused()

    page.locator("#stage").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert newest(page, server)["text"] == "a balloon on a blue background"
    page.locator("#stage").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    playwright.expect(page.locator("#stage")).to_be_hidden()
    assert httpx.get(f"{server.url}/api/jobs/{job['id']}").status_code == 404


def test_a_job_goes_on_behind_a_reload_and_is_stopped(opened: Callable[..., Any], server: LiveServer) -> None:
    page = opened()
    ask(page, TEXT, n=4, candidates=64)
    page.locator(".tile.growing img[src^='data:']").first.wait_for()
    page.reload()
    page.locator(".tile.growing img[src^='data:']").first.wait_for()
    assert page.locator(".tile").count() == 64
    assert page.get_by_label("What to draw").input_value() == TEXT
    page.get_by_role("button", name="Stop").click()
    playwright.expect(page.locator(".status")).to_contain_text("Stopped before a picture was done")
    playwright.expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert newest(page, server)["state"] == "cancelled"


def test_a_picture_is_upscaled_described_varied_and_shared(
    opened: Callable[..., Any], server: LiveServer
) -> None:
    page = opened()
    ask(page, TEXT, n=2, seed=3)
    done(page, 2)
    opener = page.locator(".tile-button").first
    opener.press("Enter")
    viewer = page.locator("#viewer")
    playwright.expect(viewer.get_by_role("heading", name=TEXT)).to_be_visible()
    page.keyboard.press("ArrowRight")
    playwright.expect(viewer.locator(".frame img")).to_have_attribute("alt", f"{TEXT}: picture 2 of 2")
    page.keyboard.press("ArrowLeft")
    viewer.get_by_role("button", name="Upscale to 512").click()
    viewer.get_by_text("Upscaled: 512 × 512").wait_for()
    shown = viewer.locator(".frame img[src^='blob:']")
    assert shown.evaluate("async (image) => { await image.decode(); return image.naturalWidth }") == 512
    viewer.get_by_role("button", name="Show the original").click()
    viewer.get_by_role("button", name="Describe").click()
    playwright.expect(viewer.locator(".seen")).to_have_count(2)
    assert "cat" in viewer.locator(".seen").first.inner_text()

    # What is typed stays as it is, unless the text is asked for, too.
    page.keyboard.press("Escape")
    playwright.expect(opener).to_be_focused()
    page.get_by_label("What to draw").fill("my own words")
    opener.click()
    viewer.get_by_role("button", name="Use seed and settings").click()
    assert page.locator("#seed").input_value() == "3"
    assert page.locator("#n").input_value() == "1"
    assert page.get_by_label("What to draw").input_value() == "my own words"
    viewer.get_by_role("button", name="Take the text, too").click()
    assert page.locator("#text").input_value() == TEXT

    # A dialog tells of its closing a frame later, when it may be open again.
    page.evaluate(
        "() => { document.getElementById('viewer').close(); document.querySelector('.tile-button').click();"
        " return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))) }"
    )
    viewer.get_by_role("button", name="Vary").click()
    done(page, 1)
    job = newest(page, server)
    assert job["is_edit"]
    assert job["text"] == TEXT


def test_a_link_fills_the_form_and_draws_nothing(opened: Callable[..., Any], server: LiveServer) -> None:
    first = opened(permissions=["clipboard-read", "clipboard-write"])
    ask(first, TEXT, n=1, seed=5)
    done(first, 1)
    first.locator(".tile-button").click()
    first.get_by_role("button", name="Copy link").click()
    first.get_by_text("The link is copied.").wait_for()
    link = urlsplit(first.evaluate("navigator.clipboard.readText()"))
    assert parse_qs(link.fragment)["text"] == [TEXT]
    second = opened(f"/#{link.fragment}&guidance=3&temperature=1e9&adapter=unknown")
    assert second.get_by_label("What to draw").input_value() == TEXT
    values = [second.locator(f"#{name}").input_value() for name in ("seed", "n", "guidance", "temperature")]
    assert values == ["5", "1", "3", ""]
    playwright.expect(second.locator("#stage")).to_be_hidden()
    assert second.url == f"{server.url}/"
    second.get_by_role("button", name="Settings").click()
    second.get_by_label("Guidance").fill("")
    second.get_by_role("button", name="Generate").click()
    done(second, 1)
    one, other = (
        httpx.get(server.url + newest(page, server)["pictures"][0]["url"]) for page in (first, second)
    )
    assert np.array_equal(pixels(one.content), pixels(other.content))


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(file)).convert("RGB")).astype(int)


def test_what_is_painted_is_drawn_anew(opened: Callable[..., Any], server: LiveServer) -> None:
    page = opened()
    ask(page, TEXT, n=1, seed=3)
    done(page, 1)
    before = pixels(httpx.get(server.url + newest(page, server)["pictures"][0]["url"]).content)
    page.locator(".tile-button").click()
    page.get_by_role("button", name="Redraw a part").click()
    canvas = page.locator("canvas.mask")
    undo = page.get_by_role("button", name="Undo")

    def painted() -> float:
        """Return the share of the picture that is painted over."""
        return page.evaluate(
            "() => { const c = document.querySelector('canvas.mask');"
            " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 127; return 4 * n / d.length }"
        )

    def stroke(*places: tuple[float, float]) -> None:
        box = canvas.bounding_box()
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()

    page.get_by_role("button", name="Redraw", exact=True).click()
    playwright.expect(page.get_by_text("Paint over a part first.")).to_be_visible()
    stroke((0.2, 0.7), (0.8, 0.7))
    brushed = painted()
    assert 0.05 < brushed < 0.2
    page.get_by_role("button", name="Eraser").click()
    stroke((0.2, 0.7), (0.5, 0.7))
    assert 0 < painted() < brushed
    undo.click()
    assert painted() == brushed
    undo.click()
    assert painted() == 0
    assert undo.is_disabled()
    page.get_by_role("button", name="Brush", exact=True).click()
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert 0 < painted() < 0.1
    page.get_by_role("button", name="lower").click()
    assert painted() >= 0.5
    page.get_by_label("What shall it show?").fill("a red cat above a tree")
    page.get_by_role("button", name="Redraw", exact=True).click()
    playwright.expect(page.get_by_role("heading", name="a red cat above a tree")).to_be_visible()
    done(page, 1)
    job = newest(page, server)
    change = np.abs(pixels(httpx.get(server.url + job["pictures"][0]["url"]).content) - before).mean(
        axis=(1, 2)
    )
    height = len(change)
    assert change[: height // 4].mean() < 3
    assert change[3 * height // 4 :].mean() > 3 * change[: height // 4].mean() + 1


def test_a_picture_of_ours_says_what_drew_it(opened: Callable[..., Any], tmp_path: Path) -> None:
    page = opened()
    image = Image.new("RGB", (256, 256), (90, 150, 230))
    facts = {
        "text": "蓝色背景上的一只猫",
        "seed": 41,
        "guidance": 2.5,
        "size_pixels": 256,
        "sampler": "gumbel",
    }
    ours, other = tmp_path / "ours.png", tmp_path / "other.png"
    ours.write_bytes(picture_file(image, text=facts["text"], facts=facts))
    image.save(other)
    dropped = page.evaluate_handle(
        "bytes => { const d = new DataTransfer();"
        " d.items.add(new File([new Uint8Array(bytes)], 'ours.png', { type: 'image/png' })); return d }",
        list(ours.read_bytes()),
    )
    for kind in ("dragenter", "dragover"):
        page.dispatch_event("body", kind, {"dataTransfer": dropped})
    playwright.expect(page.get_by_text("Drop the picture to open it")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    viewer = page.locator("#viewer")
    playwright.expect(viewer.get_by_role("heading", name=facts["text"])).to_be_visible()
    assert "Seed\n41" in viewer.locator(".facts").inner_text()
    viewer.get_by_role("button", name="Use seed and settings").click()
    page.keyboard.press("Escape")
    assert page.locator("#text").input_value() == facts["text"]
    assert [page.locator(f"#{name}").input_value() for name in ("seed", "guidance")] == ["41", "2.5"]

    page.locator("#file").set_input_files(other)
    playwright.expect(viewer.get_by_role("heading", name="A picture of yours")).to_be_visible()
    viewer.get_by_role("button", name="Describe").click()
    viewer.get_by_role("button", name="Use as text").first.click()
    assert "blue" in viewer.get_by_label("What shall it show?").input_value()
    page.keyboard.press("Escape")
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    playwright.expect(page.get_by_role("alert")).to_contain_text("cannot show this file as a picture")


def test_damaged_pictures_say_nothing(opened: Callable[..., Any]) -> None:
    page = opened()
    image = Image.new("RGB", (8, 8))
    good = picture_file(image, facts={"text": "a cat", "seed": 7})
    at = good.index(b"iTXtcogview")
    bad = {
        "cut": good[: at + 30],
        "longer than the file": good[: at - 4] + b"\xff\xff\xff\xff" + good[at:],
        "said to be compressed": good.replace(b"cogview\x00\x00", b"cogview\x00\x01"),
        "no JSON": good.replace(b'{"text"', b'["text"'),
        "no facts": picture_file(image),
        "no PNG": picture_file(image, "jpeg", facts={"text": "a cat"}),
        "nothing": b"",
    }
    read = (
        "async bytes => { const { factsOf } = await import('/page/png.js');"
        " return factsOf(new Blob([new Uint8Array(bytes)])) }"
    )
    assert page.evaluate(read, list(good)) == {"text": "a cat", "seed": 7}
    assert {name: page.evaluate(read, list(data)) for name, data in bad.items()} == dict.fromkeys(bad)
