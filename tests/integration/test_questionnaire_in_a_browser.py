"""A questionnaire answered in a real browser: by keyboard, by mouse, closed in the middle and gone on with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import SECONDS, chromium
from cogview.evaluation.questionnaire.answers import SCALES, read_answers
from cogview.evaluation.questionnaire.server import QuestionnaireServer
from questionnaire_folder import questionnaire_in, serving

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QuestionnaireServer]:
    asked = questionnaire_in(tmp_path)
    with serving(asked) as server:
        yield server


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(context: Any, server: QuestionnaireServer, complaints: list[str]) -> Any:
    """Open the questionnaire in a new tab that notes errors, and whatever it asks other servers for."""
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: request.url.startswith(server.url) or complaints.append(request.url))
    page.goto(server.url)
    return page


def radio(page: Any, letter: str, scale: str, score: int) -> Any:
    """Return a score's button as a screen reader finds it."""
    most = SCALES[scale]
    group = page.get_by_role("radiogroup", name=f"Picture {letter}, {scale}, 1 to {most}")
    return group.get_by_role("radio", name=f"{score} of {most}", exact=True)


def test_by_keyboard_by_mouse_and_again_after_closing_the_tab(
    browser: Any, server: QuestionnaireServer
) -> None:
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = opened(context, server, complaints)
    expect = playwright.expect
    expect.set_options(timeout=SECONDS * 1000)
    expect(page.get_by_text("3 questions")).to_be_visible()

    # The first question by digits, a letter and Enter alone; 0 is ten.
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 3, 0 answered")).to_be_visible()
    typed = ("4", "3", "2", "0"), ("1", "1", "5", "1"), ("5", "4", "3", "9")
    for keys in typed:
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 of 3, 1 answered")).to_be_visible()

    # The second is left in the middle; another tab has what was chosen.
    for key in ("2", "2", "2", "7", "3"):
        page.keyboard.press(key)
    page.close()
    page = opened(context, server, complaints)
    expect(page.get_by_text("2 of 3, 1 answered")).to_be_visible()
    for letter, scale, score in (("A", "texture", 2), ("A", "overall", 7), ("B", "clarity", 3)):
        expect(radio(page, letter, scale, score)).to_be_checked()
    expect(page.locator("input:checked")).to_have_count(5)

    # The rest of it by mouse. It is not sent before it is whole, and not lost when the server does not answer.
    page.get_by_role("button", name="Next").click()
    alert = page.locator("#question-alert")
    expect(alert).to_have_text("Still to choose: texture of picture B, and 7 more.")
    for letter in "BC":
        for scale in SCALES:
            if (letter, scale) != ("B", "clarity"):
                radio(page, letter, scale, 5).click()
    page.get_by_role("radio", name="Picture C is the best").click()
    expect(alert).to_be_hidden()
    page.route("**/api/answers", lambda route: route.abort())
    page.get_by_role("button", name="Next").click()
    expect(alert).to_contain_text("This answer is not kept yet (the server does not answer)")
    assert any("ERR_FAILED" in complaint for complaint in complaints)
    complaints.clear()
    page.unroute("**/api/answers")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("3 of 3, 2 answered")).to_be_visible()

    # The third as forms are filled without shortcuts: tab, space, arrows.
    for scales in range(3 * len(SCALES)):
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        if scales == 0:
            page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Thank you!")).to_be_focused()
    expect(page.get_by_text("All 3 answered")).to_be_visible()

    # A second thought about the first, and back.
    page.get_by_role("button", name="Look at my answers again").click()
    expect(radio(page, "A", "overall", 10)).to_be_checked()
    radio(page, "A", "overall", 6).click()
    page.get_by_role("button", name="Next").click()
    expect(radio(page, "A", "clarity", 2)).to_be_checked()  # of the second, which follows
    page.close()
    page = opened(context, server, complaints)
    expect(page.get_by_role("heading", name="Thank you!")).to_be_visible()
    page.get_by_role("button", name="Somebody else wants to answer").click()
    expect(page.get_by_text("3 questions")).to_be_visible()
    context.close()
    assert complaints == []

    asked = server.questionnaire
    answers = {each.question: each for each in read_answers([asked.folder / "answers.jsonl"], asked)}
    (rater,) = {answer.rater for answer in answers.values()}
    first, second, third = (answers[number] for number in asked.numbers_for(rater))

    def seen(answer: Any) -> list[list[int]]:
        """Return the scores in the order of the pictures on the page."""
        assert answer.order == asked.order_for(rater, answer.question)
        return [list(answer.scores[picture].values()) for picture in answer.order]

    assert seen(first) == [[4, 3, 2, 6], [1, 1, 5, 1], [5, 4, 3, 9]]
    assert first.best == first.order[1]
    assert seen(second) == [[2, 2, 2, 7], [3, 5, 5, 5], [5, 5, 5, 5]]
    assert second.best == second.order[2]
    assert seen(third) == [[2, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert third.best == third.order[0]
    assert all(answer.seconds is not None and answer.seconds > 0 for answer in answers.values())
    assert server.answers.counts() == (3, 1)


def test_a_link_of_ones_own_goes_on_in_another_browser(browser: Any, server: QuestionnaireServer) -> None:
    first, second = browser.new_context(), browser.new_context()
    page = first.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(f"{server.url}?rater=anna")
    page.get_by_role("button", name="Start").click()
    caption = page.locator("#caption").inner_text()
    assert caption == server.questionnaire.questions[server.questionnaire.numbers_for("anna")[0]].caption
    for _ in range(3 * len(SCALES)):
        page.keyboard.press("3")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.get_by_text("2 of 3, 1 answered").wait_for()
    page = second.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(f"{server.url}?rater=anna")
    page.get_by_text("2 of 3, 1 answered").wait_for()
    first.close()
    second.close()
    assert list(server.answers.of("anna")) == server.questionnaire.numbers_for("anna")[:1]
