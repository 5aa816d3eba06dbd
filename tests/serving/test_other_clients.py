"""What further clients send to OpenAI's images API, and how HTTP is answered apart from pictures."""

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest
from live import LiveServer
from PIL import Image

TEXT = "two umbrellas on a yellow ground"


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer none"}, timeout=60) as client:
        yield client


def sizes(answer: httpx.Response) -> list[tuple[int, int]]:
    """Return the sizes of an answer's pictures, which are all base64."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert all("url" not in each for each in data)
    return [Image.open(BytesIO(base64.b64decode(each["b64_json"]))).size for each in data]


OPEN_WEBUI = {"model": "dall-e-2", "prompt": TEXT, "n": 1, "size": "512x512", "response_format": "b64_json"}
LIBRE_CHAT = {
    "model": "gpt-image-1",
    "prompt": TEXT,
    "n": 1,
    "size": "auto",
    "quality": "auto",
    "background": "auto",
    "output_format": "webp",
}
INVOKE_AI = {"prompt": TEXT, "n": 1, "size": "256x256", "response_format": "b64_json", "seed": 4_294_967_295}


@pytest.mark.parametrize(
    ("body", "size"), [(OPEN_WEBUI, (512, 512)), (LIBRE_CHAT, (256, 256)), (INVOKE_AI, (256, 256))]
)
@pytest.mark.slow
def test_clients_are_given_a_picture(http: httpx.Client, body: dict[str, Any], size: tuple[int, int]) -> None:
    # Open WebUI adds the version of an API to the address, if one is set.
    assert sizes(http.post("/v1/images/generations?api-version=2025-01-01", json=body)) == [size]


@pytest.mark.parametrize("name", ["image", "image[]"])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.slow
def test_invoke_ai_and_open_webui_redraw(http: httpx.Client, name: str, with_mask: bool) -> None:
    file = BytesIO()
    Image.new("RGB", (300, 200), "yellow").save(file, "PNG")
    files = [(name, ("image_0.png", file.getvalue(), "image/png"))]
    if with_mask:
        mask = BytesIO()
        Image.new("L", (300, 200), 255).save(mask, "PNG")
        files.append(("mask", ("mask.png", mask.getvalue(), "image/png")))
    fields = {"model": "x", "prompt": TEXT, "n": "1", "size": "128x128", "response_format": "b64_json"}
    assert sizes(http.post("/v1/images/edits", data=fields, files=files)) == [(128, 128)]


@pytest.mark.slow
def test_nextcloud_downloads_without_a_key(http: httpx.Client) -> None:
    body = {"prompt": TEXT, "size": "128x128", "n": 2, "response_format": "url"}
    data = http.post("/v1/images/generations", json=body).json()["data"]
    assert len({each["url"] for each in data}) == 2
    for each in data:
        assert "b64_json" not in each
        assert Image.open(BytesIO(httpx.get(each["url"]).content)).size == (128, 128)


@pytest.mark.slow
def test_clients_that_call_as_a_web_page_read_a_stream_with_queue_positions_as_comments(
    http: httpx.Client,
) -> None:
    body = {"prompt": TEXT, "size": "128x128", "stream": True, "n": 2}
    with http.stream("POST", "/v1/images/generations", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        text = "".join(answer.iter_text())
    assert text.startswith(":")  # something is sent at once, so that proxies wait
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert blocks.pop() == "data: [DONE]"
    for block in blocks:
        event, data = block.split("\n")
        assert event == "event: " + json.loads(data.removeprefix("data: "))["type"]
    assert len(blocks) == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/images/variations", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1", 404),
        ("GET", "/images/generations", 404),
        ("GET", "/v1/images/generations", 405),
        ("DELETE", "/v1/models/cogview-bundled", 405),
        ("GET", "/sdapi/v1/nothing", 404),
        ("GET", "/files/..%2f..%2fetc", 404),
    ],
)
def test_what_is_not_there_is_told_in_their_form(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == f"http_{status}" or path.startswith("/files/")
    assert ("allow" in answer.headers) == (status == 405)
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/cogview-bundled", "/sdapi/v1/options"])
def test_a_slash_at_the_end_and_head_change_nothing(http: httpx.Client, path: str) -> None:
    plain = http.get(path)
    slashed = http.get(f"{path}/")
    assert plain.status_code == slashed.status_code == 200  # and no redirect, which loses keys and bodies
    assert plain.json() == slashed.json()
    head = http.head(path)
    assert head.status_code == 200
    assert head.headers["content-length"] == plain.headers["content-length"]
    assert not head.content


@pytest.mark.slow
def test_a_slash_at_the_end_loses_no_body(http: httpx.Client) -> None:
    body = {"prompt": TEXT, "size": "128x128"}
    assert sizes(http.post("/v1/images/generations/", json=body)) == [(128, 128)]


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=a", "application/x-www-form-urlencoded"]
)
def test_a_body_of_another_kind_is_refused(http: httpx.Client, kind: str) -> None:
    answer = http.post("/v1/images/generations", content=b"prompt=a", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"a"', b"\xff", b'{"prompt": NaN}', b"[" * 2000])
def test_a_body_that_is_no_object_is_refused(http: httpx.Client, body: bytes) -> None:
    for path in ("/v1/images/generations", "/sdapi/v1/txt2img"):
        answer = http.post(path, content=body, headers={"Content-Type": "application/json; charset=utf-8"})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


@pytest.mark.slow
def test_half_a_character_is_refused_and_fails_nothing(http: httpx.Client) -> None:
    kind = {"Content-Type": "application/json"}
    for path in ("/v1/images/generations", "/sdapi/v1/txt2img"):
        assert http.post(path, content=rb'{"prompt": "a \ud800"}', headers=kind).status_code == 400
    body = rb'{"prompt": "a cat", "width": 128, "override_settings": {"\ud800": "\ud800"}}'
    assert len(http.post("/sdapi/v1/txt2img", content=body, headers=kind).json()["images"]) == 1
