"""The page in a real browser, over a real server."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from live import LiveServer
from PIL import Image

from cogview.image.picture_file import picture_file

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).parents[2]
SECONDS = 60  # a busy machine is slow, and only a failure waits that long
TEXT = "a red cat above a dog"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
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


def test_a_picture_is_magnified_described_varied_and_shared(
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
    viewer.get_by_role("button", name="Magnify to 512").click()
    viewer.get_by_text("Magnified: 512 × 512").wait_for()
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
    playwright.expect(page.get_by_role("alert")).to_contain_text("no picture that the browser can show")


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


def test_both_languages_say_all_and_fit_a_phone(opened: Callable[..., Any]) -> None:
    page = opened(locale="zh-CN", viewport={"width": 390, "height": 844})
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    playwright.expect(page.get_by_role("heading", name="想画什么？")).to_be_visible()
    width = "document.documentElement.scrollWidth"
    page.locator("#chips button").first.click()
    assert "背景" in page.locator("#text").input_value()
    page.get_by_role("button", name="设置").click()
    assert page.evaluate(width) == 390
    page.locator("#n").select_option("1")
    page.locator("#candidates").select_option("0")
    page.get_by_role("button", name="生成").click()
    done(page, 1)
    assert page.evaluate(width) == 390
    page.locator(".tile-button").click()
    page.get_by_role("button", name="重画局部").click()
    assert page.evaluate(width) == 390
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") == 390
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Switch to English").click()
    playwright.expect(page.get_by_role("heading", name="What shall I draw?")).to_be_visible()
    playwright.expect(page.locator(".status")).to_contain_text("1 picture")
    page.reload()
    assert page.locator("html").get_attribute("lang") == "en"

    shapes = page.evaluate(
        "async () => { const [{ ENGLISH }, { CHINESE }] ="
        " await Promise.all([import('/page/english.js'), import('/page/chinese.js')]);"
        " return [ENGLISH, CHINESE].map((words) =>"
        " Object.fromEntries(Object.entries(words).map(([name, value]) => [name, typeof value]))) }"
    )
    assert shapes[0] == shapes[1]
    sources = "".join(
        path.read_text() for path in (ROOT / "src/cogview/serving/page").glob("*.*") if path.stem != "i18n"
    )
    used = set(re.findall(r"\bt\('(\w+)'", sources)) | set(re.findall(r'data-t="(\w+)"', sources))
    for pairs in re.findall(r'data-t-attr="([^"]+)"', sources):
        used |= {pair.split(":")[1] for pair in pairs.split(";")}
    assert used - set(shapes[0]) == set()


def test_unknown_words_cut_texts_and_wrong_settings_are_told(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.get_by_role("alert")).to_have_text("Write what shall be drawn.")
    page.get_by_label("What to draw").fill("a pandas on a gr")
    page.get_by_role("button", name="Write green").click()
    assert page.get_by_label("What to draw").input_value() == "a pandas on a green"
    ask(page, "a zebra on a red background " * 40, n=1, seed=1)
    playwright.expect(page.locator(".notes")).to_contain_text("The model has never seen: zebra.")
    playwright.expect(page.locator(".notes")).to_contain_text("The text is longer than the model reads")
    done(page, 1)
    page.get_by_label("Top-p").fill("2")
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.get_by_role("alert")).to_contain_text("Top-p must be a number from 0 to 1")
    playwright.expect(page.get_by_label("Top-p")).to_be_focused()
    page.get_by_role("button", name="Reset all").click()
    assert page.get_by_label("Top-p").input_value() == ""


def test_a_busy_server_and_one_that_asks_for_a_key(
    opened: Callable[..., Any], browser: Any, server: LiveServer, complaints: list[str]
) -> None:
    page = opened()
    error = {"error": {"message": "the queue is full", "code": "queue_full"}}
    answer = {"status": 429, "headers": {"Retry-After": "7"}, "body": json.dumps(error)}
    page.route("**/api/jobs", lambda route: route.fulfill(**answer))
    ask(page, TEXT, n=1, is_taken=False)
    told = "The server says: the queue is full. Try again in about 7 seconds."
    playwright.expect(page.get_by_role("alert")).to_have_text(told)
    page.unroute("**/api/jobs")

    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            route.fulfill(status=401, body=json.dumps({"error": {"message": "give the server's API key"}}))

    page.context.route("**/api/**", guard)
    page.reload()
    dialog = page.get_by_role("dialog")
    for key, words in (("wrong", "It is kept in this tab only"), ("right", "That key is not right.")):
        playwright.expect(dialog).to_contain_text(words)
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_role("button", name="Enter").click()
    page.locator("body[data-ready]").wait_for()
    assert page.evaluate("[localStorage, sessionStorage].map((kept) => kept.getItem('cogview-key'))") == [
        None,
        "right",
    ]
    assert complaints
    assert all("429" in each or "401" in each for each in complaints)
    complaints.clear()


def test_axe_finds_nothing_serious(opened: Callable[..., Any]) -> None:
    path = Path(os.environ.get("AXE_CORE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
    if not path.exists():
        pytest.skip("no axe-core: npm install --no-save axe-core, or AXE_CORE=path/to/axe.min.js")
    axe = path.read_text()
    run = (
        "async () => (await axe.run()).violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))"
        ".map(({ id, nodes }) => [id, ...nodes.map((node) => node.html)])"
    )
    page = opened(color_scheme="light")
    page.evaluate(axe)
    assert page.evaluate(run) == []
    ask(page, TEXT, n=1, candidates=4)
    done(page, 1)
    ask(page, "a zebra on a red background", n=1)
    done(page, 1)
    for background in ("rgb(248, 245, 239)", "rgb(22, 20, 18)"):
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
        assert page.evaluate(run) == []
        page.locator(".tile-button").click()
        page.get_by_role("button", name="Describe").click()
        page.locator(".seen").first.wait_for()
        assert page.evaluate(run) == []
        page.get_by_role("button", name="Redraw a part").click()
        assert page.evaluate(run) == []
        page.keyboard.press("Escape")
        page.locator("#stage").get_by_role("button", name="Delete").click()
        assert page.evaluate(run) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Light or dark").click()
