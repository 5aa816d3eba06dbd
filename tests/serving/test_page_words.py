"""The page says what is amiss, in both languages, on small screens and to everybody."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_browser import ask, done, playwright
from live import LiveServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TEXT = "a red cat above a dog"


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
    playwright.expect(page.locator(".notes")).to_contain_text("The text is too long for the model")
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
    for key, words in (("wrong", "It is kept in this tab only"), ("right", "That key is wrong.")):
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
        page.locator("#known-button").click()
        page.get_by_role("dialog", name="What it knows").wait_for()
        assert page.evaluate(run) == []
        page.keyboard.press("Escape")
        page.locator("#stage").get_by_role("button", name="Delete").click()
        assert page.evaluate(run) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Light or dark").click()
