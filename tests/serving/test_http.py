"""Requests of any bytes: what is meant is read, all else is one line that names the fault, and nothing grows."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any
from urllib.parse import quote

import pytest
from fake import FakeServer, fake_server
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cogview.serving.http import MAX_JSON_BYTES, ApiError
from cogview.serving.memory_budget import MemoryBudget
from cogview.serving.messages import Pixels
from cogview.serving.options import ServerOptions
from cogview.serving.responses import ErrorAnswer
from cogview.serving.uploads import shrink

pytestmark = pytest.mark.anyio

DRAW = "/v1/images/generations"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def served() -> AsyncIterator[FakeServer]:
    async with fake_server() as started:
        yield started


def png(width: int = 4, height: int = 4, mode: str = "RGB") -> bytes:
    file = BytesIO()
    Image.new(mode, (width, height)).save(file, "png")
    return file.getvalue()


async def refused(served: FakeServer, path: str = DRAW, *, status: int = 400, **request: Any) -> ErrorAnswer:
    """Return the error with which a request is refused, before any engine hears of it."""
    response = await served.client.post(path, **request)
    assert response.status_code == status, response.text
    assert not served.engine.commands
    return ErrorAnswer.model_validate(response.json())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"prompt": "\xff"}', "not valid JSON"),
        (b'["prompt"]', "must be a JSON object"),
        (b'{"prompt": "a", "top_p": NaN}', "NaN is no number"),
        (b'{"prompt": "a", "other": [-Infinity]}', "-Infinity is no number"),
        (b'{"prompt": "a", "guidance": 1e999}', "too large a number"),
        (b'{"prompt": "a", "seed": ' + b"9" * 400 + b"}", "too large a number"),
        (b'{"prompt": "a", "prompt": "b"}', "stands twice"),
        (b'{"prompt": "a", "other": {"x": 1, "x": 1}}', "stands twice"),
        (b'{"prompt": "a", "other": ' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper"),
        (b'{"prompt": "a", "other": [' + b"0," * 200_000 + b"0]}", "values"),
    ],
)
async def test_json_that_is_none_or_says_two_things_is_refused(
    served: FakeServer, body: bytes, told: str
) -> None:
    answer = await refused(served, content=body, headers=JSON)
    assert told in answer.error.message
    assert answer.error.code == "invalid_json"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_a_body_of_another_kind_is_refused(served: FakeServer, kind: str) -> None:
    await refused(served, status=415, content=b'{"prompt": "a"}', headers={"content-type": kind})


async def test_json_beyond_its_bound_is_refused_while_it_is_read(served: FakeServer) -> None:
    num_sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal num_sent
        while True:
            num_sent += 2**16
            yield b" " * 2**16

    await refused(served, status=413, content=endless(), headers=JSON)
    assert num_sent <= 2 * MAX_JSON_BYTES


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": " \t\n\u3000"}, "prompt"),
        ({"prompt": "a\ud800"}, "prompt"),
        ({"prompt": "a", "model": "\udfff"}, "model"),
        ({"prompt": "a", "user": "\ud800"}, "user"),
        ({"prompt": "a", "n": "1"}, "n"),
        ({"prompt": "a", "n": True}, "n"),
        ({"prompt": "a", "n": 1.5}, "n"),
        ({"prompt": "a", "n": 10**30}, "n"),
        ({"prompt": "a", "n": [1]}, "n"),
        ({"prompt": "a", "stream": "true"}, "stream"),
        ({"prompt": "a", "stream": 1}, "stream"),
        ({"prompt": "a", "seed": -1}, "seed"),
        ({"prompt": "a", "size": "9x9"}, "size"),
        ({"prompt": "a", "size": "8x16"}, "size"),
        ({"prompt": "a", "candidates": 65}, "candidates"),
        ({"prompt": "a", "background": "transparent"}, "background"),
        ({"prompt": "a", "output_format": "gif"}, "output_format"),
        ({"prompt": "a" * 32_001}, "prompt"),
    ],
)
async def test_a_field_that_cannot_be_is_named(
    served: FakeServer, fields: dict[str, Any], param: str
) -> None:
    answer = await refused(served, content=json.dumps(fields).encode(), headers=JSON)
    assert answer.error.param == param
    assert "\n" not in answer.error.message


@pytest.mark.parametrize(
    "more",
    [
        {"n": None, "seed": None, "stream": None},
        {"n": 2.0, "seed": 7e2},
        {"guidance": 1},
        {"unknown": [{"deep": 10**30}], "user": ""},
        {"model": "gpt-image-1", "quality": "hd", "style": "vivid", "moderation": "low"},
    ],
)
async def test_what_means_the_same_or_changes_nothing_is_taken(
    served: FakeServer, more: dict[str, Any]
) -> None:
    response = await served.client.post(DRAW, json={"prompt": "a red circle"} | more)
    assert response.status_code == 200
    assert len(response.json()["data"]) == (more.get("n") or 1)


@pytest.mark.parametrize("text", ["a\0b", "a\u202eb", "\U0001f534", "a\r\nb", "'\"\\;--%_!", "圆" * 300])
async def test_a_text_of_any_characters_comes_back_whole(served: FakeServer, text: str) -> None:
    answer = (await served.client.post(DRAW, json={"prompt": text})).json()
    (picture,) = answer["data"]
    assert picture["revised_prompt"] == text
    with Image.open(BytesIO(base64.b64decode(picture["b64_json"]))) as opened:
        opened.load()
        assert json.loads(opened.info["cogview"])["text"] == text


EDIT = "/v1/images/edits"
PROMPT = (None, b"a red circle")


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("prompt", PROMPT)], "image"),
        ([("image", png()), ("image", png()), ("prompt", PROMPT)], "image"),
        ([("image", png()), ("image[]", png()), ("prompt", PROMPT)], "image"),
        ([("image", png()), ("mask", png()), ("mask", png()), ("prompt", PROMPT)], "mask"),
        ([("image", (None, b"no file")), ("prompt", PROMPT)], "image"),
        ([("image", b"no picture"), ("prompt", PROMPT)], "image"),
        ([("image", b""), ("prompt", PROMPT)], "image"),
        ([("image", png()), ("mask", (None, b"no file")), ("prompt", PROMPT)], "mask"),
        ([("image", png())], "prompt"),
        ([("image", png()), ("prompt", (None, b""))], "prompt"),
        ([("image", png()), ("prompt", b"a file")], "prompt"),
        ([("image", png()), ("prompt", (None, b"\xff\xfe"))], "prompt"),
        ([("image", png()), ("prompt", PROMPT), ("prompt", PROMPT)], "prompt"),
        ([("image", png()), ("prompt", PROMPT), ("n", (None, b"1")), ("n", (None, b"2"))], "n"),
        ([("image", png()), ("prompt", PROMPT), ("n", (None, b"1.5"))], "n"),
        ([("image", png()), ("prompt", PROMPT), ("n", (None, b"null"))], "n"),
        ([("image", png()), ("prompt", PROMPT), ("top_p", (None, b"nan"))], "top_p"),
        ([("image", png()), ("prompt", PROMPT), ("stream", (None, b"yes"))], "stream"),
        ([("image", png()), ("prompt", PROMPT), ("region", (None, b"2"))], "region"),
    ],
)
async def test_a_part_of_a_form_that_cannot_be_is_named(
    served: FakeServer, parts: list[Any], param: str
) -> None:
    answer = await refused(served, EDIT, files=parts)
    assert answer.error.param == param
    assert " at 0x" not in answer.error.message


@pytest.mark.parametrize(
    "parts",
    [
        [("image", png()), ("prompt", PROMPT), ("n", (None, b"1")), ("stream", (None, b"False"))],
        [("image[]", png()), ("prompt", PROMPT), ("user", (None, b"")), ("n", (None, b""))],
        [("image", (None, png(), "image/png")), ("prompt", PROMPT)],
        [("image", png()), ("mask", png(mode="RGBA")), ("prompt", PROMPT), ("other", (None, b"\xff"))],
        [("image", png()), ("mask", (None, b"")), ("prompt", PROMPT), ("region", (None, b"lower"))],
    ],
)
async def test_a_form_is_read_as_clients_write_it(served: FakeServer, parts: list[Any]) -> None:
    response = await served.client.post(EDIT, files=parts)
    assert response.status_code == 200, response.text
    assert len(response.json()["data"]) == 1


def form(*parts: bytes, boundary: bytes = b"b", end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


FIELD = b'content-disposition: form-data; name="x"\r\n\r\n1'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", form(FIELD)),
        ("multipart/form-data; boundary=c", form(FIELD)),
        ("multipart/form-data; boundary=" + "b" * 300, form(FIELD)),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"no form"),
        ("multipart/form-data; boundary=b", form(FIELD, end=b"")),
        ("multipart/form-data; boundary=b", form(FIELD, end=b"--b")),
        ("multipart/form-data; boundary=b", form(b"x: y\r\n\r\n1")),
        ("multipart/form-data; boundary=b", form(FIELD.replace(b"\r\n\r\n", b"\r\nx\0: y\r\n\r\n"))),
        ("multipart/form-data; boundary=b", form(b"x: " + b"y" * 10_000 + b"\r\n" + FIELD)),
        ("multipart/form-data; boundary=b", form(*[FIELD] * 65)),
        (
            "multipart/form-data; boundary=b",
            form(*[FIELD.replace(b'"x"', b'"x"; filename="f"')] * 18),
        ),
    ],
)
async def test_a_form_that_is_damaged_cut_off_or_of_too_many_parts_is_refused(
    served: FakeServer, kind: str, body: bytes
) -> None:
    answer = await refused(served, EDIT, content=body, headers={"content-type": kind})
    assert answer.error.code == "invalid_form"


async def test_a_form_beyond_the_bound_of_bodies_is_refused() -> None:
    async with fake_server(ServerOptions(max_body_bytes=10_000)) as served:
        parts = [("image", png()), ("prompt", PROMPT), ("other", (None, b"x" * 20_000))]
        await refused(served, EDIT, status=413, files=parts)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("response_format=gif", "response_format"),
        ("response_format=url&response_format=url", "response_format"),
    ],
)
async def test_a_query_that_cannot_be_is_named(served: FakeServer, query: str, param: str) -> None:
    answer = await refused(served, f"{DRAW}?{query}", json={"prompt": "a"})
    assert answer.error.param == param


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://[::1"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:99999999"},
        {"authorization": "Basic \xe9"},
        {"content-length": "\xb2"},
        {"x-request-id": "\xe9" * 100},
        {"x-client": "x" * 65},
        {"accept": "\xff" * 1000},
    ],
)
async def test_headers_of_any_kind_are_no_fault_of_the_server(
    served: FakeServer, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await served.client.post(DRAW, json={"prompt": "a"}, headers=raw)
    assert response.status_code in (200, 400, 403)


PATHS = st.lists(
    st.sampled_from(["v1", "models", "files", "api", "jobs", "pictures", "events", "..", "1.png"])
    | st.text(max_size=6)
    | st.just("9" * 5000 + ".png"),
    max_size=5,
)


@settings(max_examples=5, deadline=None)
@given(st.lists(PATHS, min_size=20, max_size=40))
async def test_a_path_of_anything_leads_to_something_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    async with fake_server(ServerOptions(data=tmp_path_factory.mktemp("paths"))) as served:
        for parts in paths:
            path = "/" + quote(
                "/".join(parts)
            )  # as a whole URL, for what begins with two slashes is none of a path
            response = await served.client.get(served.client.base_url.copy_with(raw_path=path.encode()))
            assert response.status_code in (200, 404, 405)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=8))
async def test_what_requests_hold_together_is_bounded_and_given_back(sizes: list[int]) -> None:
    memory = MemoryBudget(100)

    async def request(size: int) -> int:
        with memory.share() as held:
            held.take(size)
            assert memory.num_bytes <= 100
            await asyncio.sleep(0)
        return size

    results = await asyncio.gather(*map(request, sizes), return_exceptions=True)
    assert memory.num_bytes == 0
    assert all(
        isinstance(each, int) or (isinstance(each, ApiError) and each.status == 429) for each in results
    )
    assert sum(sizes) > 100 or all(isinstance(each, int) for each in results)


async def test_decoded_pictures_count_for_as_long_as_their_request_lives() -> None:
    picture = png(400, 10)  # some hundred bytes, and 12,000 once it is decoded
    async with fake_server(ServerOptions(max_upload_bytes=30_000)) as served:
        served.engine.is_held = True
        parts = [("image", picture), ("prompt", PROMPT)]
        held = [asyncio.ensure_future(served.client.post(EDIT, files=parts)) for _ in range(2)]
        await served.engine.holds(2)
        third = await served.client.post(EDIT, files=parts)
        assert (third.status_code, third.headers["retry-after"]) == (429, "2")
        served.engine.release()
        assert [each.status_code for each in await asyncio.gather(*held)] == [200, 200]
        assert (await served.client.post(EDIT, files=parts)).status_code == 200


async def test_pictures_of_jobs_that_wait_are_bounded() -> None:
    async with fake_server(ServerOptions(max_job_bytes=1500, max_client_share=1.0)) as served:
        served.engine.is_held = True
        parts = [("image", png(16, 16)), ("prompt", PROMPT)]
        first = asyncio.ensure_future(served.client.post(EDIT, files=parts))
        await served.engine.holds(1)
        second = await served.client.post(EDIT, files=parts)
        assert second.status_code == 429
        assert second.json()["error"]["code"] == "queue_full"
        served.engine.release()
        assert (await first).status_code == 200


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 20))
@settings(max_examples=50, deadline=None)
async def test_pictures_are_reduced_to_what_is_of_use(width: int, height: int, side: int) -> None:
    pixels = Pixels.of(Image.new("L", (width, height), 200))
    small = shrink(pixels, side)
    assert min(small.size) >= min(side, width, height)
    assert min(small.size) < 2 * side + 1 or small == pixels
    assert set(small.data) == {200}
