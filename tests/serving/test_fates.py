"""What clients are told of a job that is refused, fails, outlives its engine, or finds no room, without a model."""

import asyncio
import io

import numpy as np
import pytest
from fake import fake_server
from PIL import Image

from cogview.serving.engine_pool import MAX_DEATHS
from cogview.serving.messages import DrawJob, Pixels, StartJob
from cogview.serving.options import ServerOptions
from cogview.serving.responses import ErrorAnswer, ImagesAnswer

pytestmark = pytest.mark.anyio

DRAW = "/v1/images/generations"
TEXT = {"prompt": "a red circle"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_told_in_the_engine_s_words(stream: bool) -> None:
    async with fake_server() as served:
        served.engine.refusal = "the mask has no white"
        response = await served.client.post(DRAW, json=TEXT | {"stream": stream})
        assert response.status_code == 400
        assert ErrorAnswer.model_validate(response.json()).error.message == "the mask has no white"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_is_told_without_what_it_says_of_the_machine(stream: bool) -> None:
    async with fake_server() as served:
        served.engine.fault = "OSError: /secret/place"
        response = await served.client.post(DRAW, json=TEXT | {"stream": stream})
        assert response.status_code == 500
        assert ErrorAnswer.model_validate(response.json()).error.code == "failed"
        assert "secret" not in response.text


@pytest.mark.parametrize("num_deaths", range(MAX_DEATHS + 1))
async def test_a_job_outlives_its_engine_unless_that_dies_of_it(num_deaths: int) -> None:
    async with fake_server() as served:
        served.engine.is_held = True
        asking = asyncio.ensure_future(served.client.post(DRAW, json=TEXT | {"seed": 5}))
        for _ in range(num_deaths):
            await served.engine.holds(1)
            served.engine.die()
            served.engine.start()
        if num_deaths < MAX_DEATHS:
            await served.engine.holds(1)
            served.engine.release()
        response = await asking
        assert response.status_code == (200 if num_deaths < MAX_DEATHS else 500)
        assert len({repr(each.job) for each in served.engine.begun}) == 1
        if response.is_success:
            (picture,) = ImagesAnswer.model_validate(response.json()).data
            assert picture.seed == 5
        assert served.jobs.num_jobs == 0


async def test_a_full_queue_says_when_to_come_again_and_has_room_afterwards() -> None:
    async with fake_server(ServerOptions(max_jobs=1, max_client_share=1.0)) as served:
        served.engine.is_held = True
        first = asyncio.ensure_future(served.client.post(DRAW, json=TEXT))
        await served.engine.holds(1)
        second = await served.client.post(DRAW, json=TEXT)
        assert second.status_code == 429
        assert 1 <= int(second.headers["retry-after"]) <= 60
        assert ErrorAnswer.model_validate(second.json()).error.type == "rate_limit_error"
        served.engine.release()
        assert (await first).status_code == 200
        assert (await served.client.post(DRAW, json=TEXT)).status_code == 200


async def test_a_server_that_ends_refuses_what_is_new() -> None:
    async with fake_server() as served:
        await served.jobs.drain(1)
        response = await served.client.post(DRAW, json=TEXT)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert ErrorAnswer.model_validate(response.json()).error.code == "draining"
        assert (await served.client.get("/readyz")).json() == {"ready": False}


async def test_a_job_that_takes_too_long_is_given_up_and_its_engine_is_told() -> None:
    async with fake_server(ServerOptions(max_job_seconds=0.05)) as served:
        served.engine.is_held = True
        response = await served.client.post(DRAW, json=TEXT)
        assert response.status_code == 500
        assert served.engine.cancelled == [each.number for each in served.engine.begun]


async def test_what_changes_nothing_is_let_pass_and_told() -> None:
    async with fake_server() as served:
        body = TEXT | {"canddates": 4, "moderation": "low", "style": None, "x" * 500: 1}
        answer = (await served.client.post(DRAW, json=body)).json()
        assert ImagesAnswer.model_validate(answer).ignored == ["canddates", "moderation", "x" * 40]
        many = TEXT | {f"field-{number}": number for number in range(100)}
        assert len((await served.client.post(DRAW, json=many)).json()["ignored"]) == 20
        assert "ignored" not in (await served.client.post(DRAW, json=TEXT)).json()


async def test_a_variation_goes_on_from_the_upper_rows() -> None:
    async with fake_server() as served:
        file = io.BytesIO()
        Image.new("RGB", (40, 20)).save(file, "PNG")
        answer = await served.client.post(
            "/v1/images/edits", data=TEXT, files={"image": ("a.png", file.getvalue(), "image/png")}
        )
        assert answer.status_code == 200
        begun = [each for each in served.engine.commands if isinstance(each, StartJob)]
        work = begun[0].job
        assert isinstance(work, DrawJob)
        assert isinstance(work.mask, Pixels)
        rows = np.asarray(work.mask.image())
        assert rows.shape == (20, 40)
        assert not rows[:4].any()
        assert (rows[4:] == 255).all()
