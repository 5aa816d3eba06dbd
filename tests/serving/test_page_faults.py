"""What fails while the page's jobs are drawn ends them, and leaves nothing behind."""

import asyncio
import sqlite3
from io import BytesIO
from pathlib import Path

import pytest
from fake import fake_server
from PIL import Image

from cogview.errors import CogViewError
from cogview.serving import page_api
from cogview.serving.job_store import JobStore
from cogview.serving.messages import DrawJob
from cogview.serving.options import ServerOptions


def no_room(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("names", [("keep",), ("keep", "set_state"), ("set_accepted", "set_state")])
def test_a_disk_that_is_full_ends_a_job_for_its_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(page_api, "_LINGER_SECONDS", 0.05)

    async def ask() -> None:
        async with fake_server(ServerOptions(data=tmp_path)) as served:
            served.engine.is_held = True
            job = (await served.client.post("/api/jobs", json={"prompt": "a fish", "n": 2})).json()["id"]
            for name in names:
                monkeypatch.setattr(JobStore, name, no_room)
            reading = asyncio.create_task(served.client.get(f"/api/jobs/{job}/events"))
            await asyncio.sleep(0.05)
            served.engine.release()
            told = (await asyncio.wait_for(reading, 5)).text
            assert '"type":"failed"' in told
            assert "disk" not in told
            assert served.jobs.num_jobs == 0

    asyncio.run(ask())


def test_pictures_that_a_job_was_given_are_dropped_with_its_end(tmp_path: Path) -> None:
    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")

    async def ask() -> None:
        async with fake_server(ServerOptions(data=tmp_path)) as served:
            served.engine.is_held = True
            files = {"image": picture.getvalue(), "mask": picture.getvalue()}
            job = (await served.client.post("/api/jobs", data={"prompt": "a fish"}, files=files)).json()["id"]
            folder = tmp_path / "pictures" / job
            assert {each.name for each in folder.iterdir()} == {"image.png", "mask.png"}
            served.engine.release()
            await served.client.get(f"/api/jobs/{job}/events")
            assert [each.name for each in folder.iterdir()] == ["0.png"]
            shown = (await served.client.get(f"/api/jobs/{job}")).json()
            assert shown["is_edit"]
            assert shown["state"] == "done"

    asyncio.run(ask())


def test_what_was_begun_before_can_be_stopped_while_there_is_no_room(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    kept = store.add("", DrawJob(text="a fish", seeds=(1,)))
    store.close()

    async def ask() -> None:
        async with fake_server(ServerOptions(data=tmp_path, max_jobs=0)) as served:
            answer = await asyncio.wait_for(served.client.post(f"/api/jobs/{kept.id}/stop"), 4)
            assert answer.json()["state"] == "cancelled"

    asyncio.run(ask())


def test_a_folder_is_of_one_server_at_a_time(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    with pytest.raises(CogViewError, match="another server"):
        JobStore(tmp_path)
    store.add("", DrawJob(text="a fish", seeds=(1,)))
    store.close()
    JobStore(tmp_path).close()


def test_a_long_list_drops_no_jobs_of_others(tmp_path: Path) -> None:
    store = JobStore(tmp_path, max_jobs=4)

    def ask(owner: str) -> None:
        store.set_state(store.add(owner, DrawJob(text="a fish", seeds=(1,))).id, "done")

    for owner in ["ann", *["bob"] * 10, "cat"]:
        ask(owner)
    store.add("dan", DrawJob(text="a fish", seeds=(1,)))  # which forgets what is too much
    assert [len(store.history(owner)) for owner in ("ann", "bob", "cat")] == [1, 2, 1]
    store.close()
