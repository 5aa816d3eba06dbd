"""The list of what the model knows, in a browser: it writes words into the text, by mouse and by keyboard."""

from collections.abc import Callable
from typing import Any

import pytest
from in_browser import ask, playwright

pytestmark = pytest.mark.slow


def test_a_click_writes_a_word_at_the_cursor(opened: Callable[..., Any]) -> None:
    page = opened()
    text = page.get_by_label("What to draw")
    opener = page.get_by_role("button", name="What it knows")
    opener.click()
    dialog = page.get_by_role("dialog", name="What it knows")
    playwright.expect(dialog.get_by_role("heading", name="Things (80)")).to_be_visible()
    for group in ("Colours of grounds only", "Numbers, beside one", "Places", "Styles"):
        assert dialog.get_by_role("heading", name=group).count() == 1
    assert dialog.get_by_role("heading", name="Sizes").count() == 0
    page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()
    playwright.expect(opener).to_be_focused()

    text.fill("a on a background")
    text.evaluate("area => area.setSelectionRange(1, 1)")
    opener.press("Enter")
    dialog.get_by_label("Find a thing").fill("KITTEN")
    assert dialog.get_by_role("button", name="Write").filter(visible=True).first.inner_text() == "cat"
    playwright.expect(dialog.get_by_role("button", name="Write dog")).to_be_hidden()
    dialog.get_by_role("button", name="Write cat", exact=True).press("Enter")
    dialog.get_by_label("Find a thing").fill("nothing like it")
    playwright.expect(dialog.get_by_text("knows nothing of that name")).to_be_visible()
    dialog.get_by_role("button", name="Write to the left of").click()
    playwright.expect(dialog.locator(".known-text")).to_have_text("a cat to the left of on a background")
    page.keyboard.press("Escape")
    playwright.expect(text).to_be_focused()
    page.keyboard.type(" a dog")
    assert text.input_value() == "a cat to the left of a dog on a background"


def test_in_chinese_on_a_phone_it_fits_and_writes_chinese(opened: Callable[..., Any]) -> None:
    page = opened(locale="zh-CN", viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.get_by_role("button", name="模型认识什么").click()
    dialog = page.get_by_role("dialog", name="模型认识什么")
    for name in ("红色", "猫"):
        dialog.get_by_role("button", name=f"写入“{name}”", exact=True).click()
    assert page.locator("#text").input_value() == "红色猫"
    assert dialog.evaluate("each => each.scrollWidth <= each.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    hidden = dialog.locator(".chip").filter(visible=False)
    assert hidden.count() == 0
    dialog.get_by_role("button", name="关闭").click()
    playwright.expect(dialog).to_be_hidden()


def test_a_note_of_unknown_words_leads_to_the_list(opened: Callable[..., Any]) -> None:
    page = opened()
    ask(page, "a zebra", n=1, seed=1)
    page.locator(".notes").get_by_role("button", name="What it knows").click()
    playwright.expect(page.get_by_role("dialog", name="What it knows")).to_be_visible()
