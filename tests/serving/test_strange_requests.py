"""What clients make up leaves nothing behind: no labels, no lines of the log that look like others."""

import asyncio
import base64
import logging
import sys
from io import BytesIO
from pathlib import Path

import pytest
from fake import fake_server
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from cogview.serving.a1111_forms import ImageToImageRequest
from cogview.serving.http import parse_fields
from cogview.serving.logs import set_up_logs
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import CaptionRequest, EditRequest, GenerationRequest


def test_methods_that_clients_make_up_are_counted_as_one() -> None:
    async def count() -> None:
        async with fake_server() as served:
            for number in range(20):
                assert (await served.client.request(f"MADE-UP-{number}", "/v1/models")).status_code == 405
            figures = (await served.client.get("/metrics")).text
            assert "MADE-UP" not in figures
            assert 'cogview_requests_total{method="other",route="/v1/models",status="405"} 20.0' in figures

    asyncio.run(count())


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=50)
def test_a_line_of_the_log_is_a_line_whatever_the_path(path: str) -> None:
    set_up_logs("text", is_quiet=False)
    (handler,) = logging.getLogger("cogview.serving").handlers
    record = logging.LogRecord("x", logging.INFO, "", 0, "request", None, None)
    record.path, record.status = f"/{path}", 404
    line = handler.format(record)
    assert len(line.splitlines()) == 1
    assert len(line.split()) == 4


def test_what_is_said_to_need_no_key_needs_none() -> None:
    async def ask() -> None:
        async with fake_server(ServerOptions(api_keys=("a key",))) as served:
            described = (await served.client.get("/openapi.json")).json()
            for path, methods in described["paths"].items():
                if "get" not in methods:
                    continue
                is_open = methods["get"].get("security", described["security"]) == []
                answer = await served.client.get(path.replace("{", "").replace("}", ""))
                assert (answer.status_code == 401) == (not is_open), path

    asyncio.run(ask())


@pytest.mark.parametrize("model", [GenerationRequest, EditRequest, CaptionRequest, ImageToImageRequest])
def test_a_request_that_waits_keeps_nothing_that_is_not_used(model: type[BaseModel]) -> None:
    filling = [[] for _ in range(1000)]
    fields = parse_fields(
        model,
        {
            "prompt": "a",
            "init_images": ["x"],
            "filling": filling,
            "override_settings": {"filling": filling, "x": "y"},
        },
    )
    held = 0
    left: list[object] = [fields.model_dump()]
    while left:
        each = left.pop()
        held += sys.getsizeof(each)
        left += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    assert held < 8000
    assert not any(value is filling for value in fields.model_dump().values())


@pytest.mark.parametrize("way", ["form", "base64"])
def test_a_picture_counts_with_its_pixels_whichever_way_it_came(way: str) -> None:
    picture = BytesIO()
    Image.new("RGB", (240, 240)).save(picture, "png")
    assert len(picture.getvalue()) < 1000

    async def ask() -> None:
        async with fake_server(ServerOptions(max_upload_bytes=5000)) as served:
            if way == "form":
                files = {"image": picture.getvalue()}
                answer = await served.client.post("/v1/images/edits", data={"prompt": "a"}, files=files)
            else:
                images = [base64.b64encode(picture.getvalue()).decode()]
                body = {"prompt": "a", "init_images": images}
                answer = await served.client.post("/sdapi/v1/img2img", json=body)
            assert answer.status_code == 413
            assert not served.engine.commands

    asyncio.run(ask())


def test_an_address_has_not_all_places() -> None:
    async def ask() -> None:
        async with fake_server(ServerOptions(max_connections=4)) as served:
            served.engine.is_held = True
            body = {"prompt": "a red circle"}
            asking = [
                asyncio.ensure_future(served.client.post("/v1/images/generations", json=body))
                for _ in range(2)
            ]
            await served.engine.holds(2)
            refused = await served.client.post("/v1/images/generations", json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
            served.engine.release()
            assert [each.status_code for each in await asyncio.gather(*asking)] == [200, 200]
            served.engine.is_held = False
            assert (await served.client.post("/v1/images/generations", json=body)).status_code == 200

    asyncio.run(ask())


def test_jobs_are_of_a_key_and_a_name_and_without_a_name_of_whoever_knows_them(tmp_path: Path) -> None:
    async def ask() -> None:
        options = ServerOptions(api_keys=("one", "other"), data=tmp_path / "served")
        async with fake_server(options) as served:

            def of(key: str, name: str = "") -> dict[str, str]:
                return {"Authorization": f"Bearer {key}"} | ({"X-Client": name} if name else {})

            body = {"prompt": "a red circle"}
            mine = (await served.client.post("/api/jobs", json=body, headers=of("one", "ann"))).json()["id"]
            nobodys = (await served.client.post("/api/jobs", json=body, headers=of("one"))).json()["id"]
            for headers in (of("other", "ann"), of("one", "bob"), of("one")):
                assert (await served.client.delete(f"/api/jobs/{mine}", headers=headers)).status_code == 403
                assert (await served.client.get("/api/jobs", headers=headers)).json()["data"] == []
            (found,) = (await served.client.get("/api/jobs", headers=of("one", "ann"))).json()["data"]
            assert found["id"] == mine
            assert (
                await served.client.delete(f"/api/jobs/{nobodys}", headers=of("other"))
            ).status_code == 204
            assert (
                await served.client.delete(f"/api/jobs/{mine}", headers=of("one", "ann"))
            ).status_code == 204

    asyncio.run(ask())
