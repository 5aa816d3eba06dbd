"""/openapi.json against the server that it describes: its routes, its real answers, and what it refuses."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fake import FACTS, FakeServer, fake_server
from PIL import Image
from pydantic import BaseModel

from cogview.serving.messages import Accepted, Failed
from cogview.serving.openapi import document
from cogview.serving.options import ServerOptions
from cogview.serving.responses import (
    AliveAnswer,
    CaptionsAnswer,
    CompletedEvent,
    EndEvent,
    ErrorAnswer,
    ErrorEvent,
    FactsAnswer,
    ImagesAnswer,
    JobAnswer,
    JobsAnswer,
    ModelAnswer,
    ModelsAnswer,
    PartialImageEvent,
    PictureEvent,
    PreviewEvent,
    RankAnswer,
    ReadyAnswer,
    UpscaleAnswer,
    WordsAnswer,
)

pytestmark = pytest.mark.anyio

FILE = BytesIO()
Image.new("RGB", (4, 4)).save(FILE, "png")
PICTURE = {"image": FILE.getvalue()}
TEXT = {"prompt": "a red circle"}
KEY = "a-key"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with fake_server(ServerOptions(data=tmp_path)) as started:
        yield started


def events_of(stream: str) -> list[dict[str, Any]]:
    """Return the data of a stream's events, without its comments and its end."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(
    ("path", "request_", "answer"),
    [
        ("/v1/images/generations", {"json": TEXT}, ImagesAnswer),
        ("/v1/images/generations", {"json": TEXT | {"n": 2, "candidates": 4}}, ImagesAnswer),
        ("/v1/images/generations?response_format=url", {"json": TEXT}, ImagesAnswer),
        ("/v1/images/edits", {"files": PICTURE, "data": TEXT}, ImagesAnswer),
        ("/v1/images/upscale", {"files": PICTURE}, UpscaleAnswer),
        ("/v1/images/captions", {"files": PICTURE, "data": {"n": "2"}}, CaptionsAnswer),
        ("/v1/images/rank", {"files": [("image[]", FILE.getvalue())] * 2, "data": TEXT}, RankAnswer),
        ("/v1/models", None, ModelsAnswer),
        ("/v1/models/fake", None, ModelAnswer),
        ("/v1/models/fake:woodcut", None, ModelAnswer),
        ("/api/facts", None, FactsAnswer),
        ("/api/words", None, WordsAnswer),
        ("/api/jobs", {"json": TEXT}, JobAnswer),
        ("/api/jobs", {"files": PICTURE, "data": TEXT}, JobAnswer),
        ("/api/jobs?search=red&limit=1", None, JobsAnswer),
        ("/livez", None, AliveAnswer),
        ("/readyz", None, ReadyAnswer),
    ],
)
@pytest.mark.slow
async def test_answers_are_what_is_described(
    served: FakeServer, path: str, request_: dict[str, Any] | None, answer: type[BaseModel]
) -> None:
    method = "GET" if request_ is None else "POST"
    response = await served.client.request(method, path, **(request_ or {}))
    assert response.is_success, response.text
    answer.model_validate(response.json(), strict=True)
    described = (await served.client.get("/openapi.json")).json()
    name = "{name}" if "fake" in path else ""
    operation = described["paths"][path.partition("?")[0].partition("fake")[0] + name][method.lower()]
    told = operation["responses"][str(response.status_code)]["content"]["application/json"]["schema"]
    assert told == {"$ref": f"#/components/schemas/{answer.__name__}"}


async def test_a_caption_that_was_answered_is_a_job_that_is_done(served: FakeServer) -> None:
    served.engine.pause_seconds = 0.05  # between the answer and the end
    response = await served.client.post("/v1/images/captions", files=PICTURE)
    assert response.is_success
    figures = (await served.client.get("/metrics")).text
    assert 'cogview_jobs_total{state="done"} 1.0' in figures


@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
async def test_events_of_a_stream_are_what_is_described(served: FakeServer, kind: str) -> None:
    served.engine.pause_seconds = 0.02
    fields = TEXT | {"stream": "true", "partial_images": "2", "n": "2"}
    if kind == "image_edit":
        response = await served.client.post("/v1/images/edits", files=PICTURE, data=fields)
    else:
        plain = TEXT | {"stream": True, "partial_images": 2, "n": 2}
        response = await served.client.post("/v1/images/generations", json=plain)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    partial = [each for each in events if each["type"] == f"{kind}.partial_image"]
    done = [each for each in events if each["type"] == f"{kind}.completed"]
    assert len(done) == 2
    assert len(partial) == 2
    assert [PartialImageEvent.model_validate(each).partial_image_index for each in partial] == [0, 1]
    assert len({CompletedEvent.model_validate(each).seed for each in done}) == 2
    assert len(events) == 4


async def test_a_stream_that_fails_ends_with_the_error_that_is_described(served: FakeServer) -> None:
    served.engine.is_held = True
    fields = TEXT | {"stream": True}
    asking = asyncio.ensure_future(served.client.post("/v1/images/generations", json=fields))
    await served.engine.holds(1)
    (number,) = served.engine.held
    served.engine.tell(number, Accepted())
    await asyncio.sleep(0.05)  # the head of the answer is sent with what is told first
    served.engine.tell(number, Failed(message="a secret of the machine"))
    response = await asking
    assert response.status_code == 200
    (event,) = events_of(response.text)
    assert ErrorEvent.model_validate(event).error.code == "failed"
    assert "secret" not in response.text


async def test_events_of_a_job_are_what_is_described(served: FakeServer) -> None:
    served.engine.pause_seconds = 0.02
    job = JobAnswer.model_validate((await served.client.post("/api/jobs", json=TEXT)).json())
    events = events_of((await served.client.get(f"/api/jobs/{job.id}/events")).text)
    kinds = {"preview": PreviewEvent, "picture": PictureEvent}
    for event in events[1:-1]:
        kinds[event["type"]].model_validate(event)
    assert events[0]["type"] == "accepted"
    assert EndEvent.model_validate(events[-1]).type == "done"
    kept = JobAnswer.model_validate((await served.client.get(f"/api/jobs/{job.id}")).json())
    file = await served.client.get(kept.pictures[0].url)
    assert file.headers["content-type"] == "image/png"
    assert (await served.client.delete(f"/api/jobs/{job.id}")).status_code == 204
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/stop"), ("DELETE", "")):
        gone = await served.client.request(method, f"/api/jobs/{job.id}{path}")
        assert gone.status_code == 404
        ErrorAnswer.model_validate(gone.json())


async def test_other_methods_are_refused_with_those_that_there_are(served: FakeServer) -> None:
    paths = (await served.client.get("/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        there = path.replace("{id}", "x").replace("{place}", "0").replace("{name}", "x")
        for method in {"get", "post", "put", "patch", "delete", "options"} - set(operations):
            response = await served.client.request(method, there)
            assert response.status_code == 405, (method, there)
            allowed = {each.strip().lower() for each in response.headers["allow"].split(",")}
            assert allowed - {"head"} == set(operations)
            assert ErrorAnswer.model_validate(response.json()).error.type == "invalid_request_error"


async def test_keys_are_asked_for_where_that_is_described(tmp_path: Path) -> None:
    options = ServerOptions(data=tmp_path, api_keys=(KEY,))
    async with fake_server(options) as served:
        described = (await served.client.get("/openapi.json")).json()
        scheme = {"type": "http", "scheme": "bearer"}
        assert described["components"]["securitySchemes"] == {"key": scheme}
        for path, operations in described["paths"].items():
            there = path.replace("{id}", "x").replace("{place}", "0").replace("{name}", "x")
            for method, operation in operations.items():
                response = await served.client.request(method, there)
                is_open = operation.get("security") == []
                assert (response.status_code == 401) == (not is_open), (method, path)
                assert ("401" in operation["responses"]) == (not is_open)
                if not is_open:
                    assert response.headers["www-authenticate"] == "Bearer"
                    headers = {"authorization": f"Bearer {KEY}"}
                    known = await served.client.request(method, there, headers=headers)
                    assert known.status_code != 401
    async with fake_server(ServerOptions(data=tmp_path)) as served:
        open_ = (await served.client.get("/openapi.json")).json()
        assert "securitySchemes" not in open_["components"]
        assert all("401" not in each["responses"] for one in open_["paths"].values() for each in one.values())


async def test_all_that_is_served_is_described(served: FakeServer) -> None:
    described = (await served.client.get("/openapi.json")).json()
    assert described["openapi"] == "3.1.0"
    wanted = {
        *(f"/v1/images/{name}" for name in ("generations", "edits", "upscale", "captions", "rank")),
        *("/v1/models", "/v1/models/{name}", "/files/{name}", "/pictures/{id}/{place}.png"),
        *(
            "/api/facts",
            "/api/words",
            "/api/jobs",
            "/api/jobs/{id}",
            "/api/jobs/{id}/stop",
            "/api/jobs/{id}/events",
        ),
        *("/livez", "/readyz", "/metrics", "/openapi.json"),
    }
    assert wanted <= set(described["paths"])
    names = [each["operationId"] for one in described["paths"].values() for each in one.values()]
    assert len(names) == len(set(names))


async def test_each_reference_leads_somewhere_and_each_field_is_told_of(served: FakeServer) -> None:
    described = (await served.client.get("/openapi.json")).json()

    def check(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                target: Any = described
                for name in part["$ref"].removeprefix("#/").split("/"):
                    target = target[name]
            for each in part.values():
                check(each)
        elif isinstance(part, list):
            for each in part:
                check(each)

    check(described)
    for name, schema in described["components"]["schemas"].items():
        if name.endswith("Request"):
            untold = [field for field, told in schema["properties"].items() if "description" not in told]
            assert untold == [], name
    for one in described["paths"].values():
        for operation in one.values():
            assert operation["summary"].endswith(".")
            for parameter in operation["parameters"]:
                assert parameter["description"].endswith(".")


@pytest.mark.parametrize(
    ("name", "most", "options"),
    [
        ("n", 3, ServerOptions(max_pictures=3)),
        ("candidates", 5, ServerOptions(max_candidates=5)),
        ("prompt", 40, ServerOptions(max_text_characters=40)),
    ],
)
async def test_bounds_are_described_as_they_are(name: str, most: int, options: ServerOptions) -> None:
    async with fake_server(options) as served:
        described = (await served.client.get("/openapi.json")).json()
        schema = described["components"]["schemas"]["GenerationRequest"]["properties"][name]
        told = schema.get("maxLength") or schema["anyOf"][0]["maximum"]
        assert told == most
        for value, status in ((most, 200), (most + 1, 400)):
            given = TEXT | {name: "a" * value if name == "prompt" else value}
            response = await served.client.post("/v1/images/generations", json=given)
            assert response.status_code == status


async def test_before_the_model_is_loaded_sizes_are_left_open(served: FakeServer) -> None:
    served.engine.facts = None
    described = (await served.client.get("/openapi.json")).json()
    size = described["components"]["schemas"]["GenerationRequest"]["properties"]["size"]
    assert {"type": "null"} in size["anyOf"]
    assert not any("enum" in each for each in size["anyOf"])
    for path in ("/v1/models", "/api/facts", "/api/words"):
        response = await served.client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        ErrorAnswer.model_validate(response.json())
    served.engine.facts = replace(FACTS, sizes=(32,))
    described = (await served.client.get("/openapi.json")).json()
    size = described["components"]["schemas"]["GenerationRequest"]["properties"]["size"]
    assert {"enum": ["32x32", "auto"]} in size["anyOf"]


def test_a_document_of_nothing_is_one() -> None:
    assert document([], ServerOptions(), None)["paths"] == {}
