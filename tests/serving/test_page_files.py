"""The page's files as the server gives them out, and what it suggests to draw."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from live import LiveServer

import cogview
from cogview.generation.known_concepts import SIZE_NAMES
from cogview.generation.model import LoadedModel
from cogview.serving import suggestions as module
from cogview.serving.job_store import JobStore
from cogview.serving.jobs import Job, Jobs
from cogview.serving.messages import DrawJob, Pixels, Preview
from cogview.serving.options import ServerOptions
from cogview.serving.page_api import PageApi, _LiveJob
from cogview.serving.state import ServerState
from cogview.serving.suggestions import suggestions
from cogview.serving.temporary_files import TemporaryFiles
from cogview.text.known_words import KnownWords, count_words

PAGE = Path(cogview.__file__).parent / "serving" / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LARGER = module._LARGE_WORLD_PLANS
FILES = sorted(PAGE.iterdir())


@pytest.mark.slow
def test_each_file_is_given_out_once(server: LiveServer) -> None:
    for path in FILES:
        address = "/" if path.name == "index.html" else f"/page/{path.name}"
        answer = httpx.get(server.url + address)
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"].partition(";")[0] == KINDS[path.suffix]
        assert answer.headers["cache-control"] == "no-cache"
        tag = answer.headers["etag"]
        known = httpx.get(server.url + address, headers={"If-None-Match": tag})
        assert (known.status_code, known.content) == (304, b"")
        assert httpx.get(server.url + address, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["none.js", "..%2fapp.py", "%2e%2e%2fapp.py", "", "page_api.py"])
def test_nothing_else_is_given_out(server: LiveServer, name: str) -> None:
    answer = httpx.get(f"{server.url}/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_keeps_to_the_policy_and_names_only_what_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400
    for address in re.findall(r"\w+://[^\s'\"<)]*", text):
        assert address.startswith("http://www.w3.org/"), address  # the name of SVG, which nobody asks for
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "<style",
        " style=",
    ):
        assert forbidden not in text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=\"", text)
    named = re.findall(r"from '\./([^']+)'", text) + re.findall(r"\"/page/([^\"#]+)", text)
    assert set(named) <= {each.name for each in FILES}


def test_suggestions_can_be_drawn_and_seen() -> None:
    model = cogview.load().model
    found = suggestions(model)
    assert {language: len(sentences) for language, sentences in found.items()} == {"en": 24, "zh": 24}
    assert model.unknown_words(sentence for sentences in found.values() for sentence in sentences) == []
    for _, told, ground in (*module._PLANS, *LARGER):
        for each in module._parse_items(told):
            assert not each.thing.held_out
            assert ground not in {swallowing for _, swallowing in each.thing.swallowed_by}
            assert ground != each.colour
    words = model.parts.words
    assert words is not None
    counts = {word: count for word, count in words.counts.items() if word not in ("panda", "熊猫", "rocket")}
    fewer = suggestions(LoadedModel(replace(model.parts, words=replace(words, counts=counts))))
    assert set(found["en"]) - set(fewer["en"]) == {
        "a panda on a green background",
        "a rocket on a black background",
    }
    assert set(found["zh"]) - set(fewer["zh"]) == {"绿色背景上的一只熊猫"}
    assert suggestions(LoadedModel(replace(model.parts, words=None))) == {"en": (), "zh": ()}


def test_only_a_model_that_knows_sizes_is_asked_for_groups_colours_and_sizes() -> None:
    model = cogview.load().model
    words = model.parts.words
    assert words is not None

    def of_larger(*lost: str) -> dict[str, set[str]]:
        told = [sentence for language in ("en", "zh") for sentence in module._sentences(language, LARGER)]
        more = count_words([*told, *SIZE_NAMES], model.text_tokenizer)
        learnt = words | KnownWords.of_counts({word: n for word, n in more.items() if word not in lost})
        found = suggestions(LoadedModel(replace(model.parts, words=learnt)))
        return {language: set(sentences) - set(plain[language]) for language, sentences in found.items()}

    plain = suggestions(model)
    assert "two cats and a dog on a blue background" not in plain["en"]
    told = of_larger()
    assert {
        "two cats and a dog on a blue background",
        "a small dog beside a big house on a green background",
        "a blue apple on a white background",
        "five stars on a black background",
    } <= told["en"]
    assert {
        "蓝色背景上的两只猫和一只狗",
        "绿色背景上，一只小狗在一座很大的房子的旁边",
        "白色背景上的一个蓝色的苹果",
        "黑色背景上的五颗星星",
    } <= told["zh"]
    assert told["en"] - of_larger("five")["en"] == {"five stars on a black background"}
    assert of_larger("small") == {"en": set(), "zh": set()}


def test_previews_of_a_job_that_was_begun_again_are_of_the_right_candidates(tmp_path: Path) -> None:
    options = ServerOptions(data=tmp_path)
    store = JobStore(tmp_path)
    page = PageApi(ServerState(options=options, jobs=Jobs(options, []), files=TemporaryFiles(1.0, 1)), store)
    work = DrawJob(text="a cat", seeds=(3, 4, 5, 6))
    live = _LiveJob(stored=store.add("me", work), client=("page",))
    live.job = Job(number=1, client=("page",), work=replace(work, seeds=(4, 6)))
    live.log.num_readers = 1
    grey = Pixels(mode="RGB", size=(8, 8), data=bytes(192))

    async def take() -> None:
        for candidate in (0, 1):
            await page._handle_preview(live, Preview(candidate=candidate, share=0.5, pixels=grey))

    asyncio.run(take())
    store.close()
    assert [(event["candidate"], event["seed"]) for event in live.log] == [(1, 4), (3, 6)]
