"""What the page asked for and got lies on the disk, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cogview.errors import CogViewError
from cogview.serving.job_store import JobStore, StoredPicture
from cogview.serving.messages import DrawJob, Pixels


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "served")
    yield store
    store.close()


def pixels(mode: str = "RGB", level: int = 7) -> Pixels:
    return Pixels.of(Image.new(mode, (4, 3), level if mode == "L" else (level, 20, 30)))


def test_a_job_is_there_after_a_restart_with_its_pictures(store: JobStore, tmp_path: Path) -> None:
    work = DrawJob(
        text="一只猫",
        seeds=(3, 4),
        keep=1,
        options={"top_p": 0.5},
        image=pixels(),
        mask=pixels("L"),
        is_previewed=True,
    )
    kept = store.add("ann", work)
    picture = StoredPicture(place=0, seed=4, facts={"seed": 4, "text": "一只猫"})
    store.keep(kept.id, picture, b"png")
    store.set_accepted(kept.id, {"text": "一只猫"})
    store.close()

    again = JobStore(tmp_path / "served")
    (found,) = again.unfinished()
    assert (found.id, found.owner, found.state, found.accepted) == (
        kept.id,
        "ann",
        "waiting",
        {"text": "一只猫"},
    )
    assert found.pictures == (picture,)
    assert again.load_work(found) == work
    assert again.file(kept.id, 0) == b"png"
    assert again.file(kept.id, 1) is None
    again.set_state(kept.id, "done")
    assert again.unfinished() == []
    again.close()


def test_masks_that_are_no_pictures_are_kept_as_they_are(store: JobStore) -> None:
    for mask in ("upper", 0.25):
        kept = store.add("ann", DrawJob(text="a cat", seeds=(1,), image=pixels(), mask=mask))
        found = store.job(kept.id)
        assert found is not None
        assert store.load_work(found).mask == mask


def test_history_is_the_owners_newest_first_and_searched_by_words(store: JobStore) -> None:
    texts = ("a red cat", "a dog", "A red Dog, 100%", "100 dogs")
    jobs = [store.add("ann", DrawJob(text=text, seeds=(1,))) for text in texts]
    store.add("bob", DrawJob(text="a red dog", seeds=(1,)))
    assert [each.work.text for each in store.history("ann")] == list(texts[::-1])
    assert [each.work.text for each in store.history("ann", "dog red")] == ["A red Dog, 100%"]
    assert [each.work.text for each in store.history("ann", "100%")] == ["A red Dog, 100%"]
    assert [each.work.text for each in store.history("ann", "_")] == []
    assert [each.id for each in store.history("ann", before=jobs[2].number, limit=1)] == [jobs[1].id]
    assert store.history("nobody") == []


def test_what_is_deleted_is_gone_from_the_disk(store: JobStore, tmp_path: Path) -> None:
    kept = store.add("ann", DrawJob(text="a cat", seeds=(1,), image=pixels(), mask=0.5))
    store.keep(kept.id, StoredPicture(place=0, seed=1, facts={}), b"png")
    store.delete(kept.id)
    assert store.job(kept.id) is None
    assert store.file(kept.id, 0) is None
    assert list((tmp_path / "served" / "pictures").iterdir()) == []
    store.keep(
        kept.id, StoredPicture(place=0, seed=1, facts={}), b"late"
    )  # of an engine that was not told in time
    assert list((tmp_path / "served" / "pictures").iterdir()) == []


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "served", max_jobs=3)
    waiting = store.add("bob", DrawJob(text="still", seeds=(1,)))
    for number in range(5):
        kept = store.add("ann", DrawJob(text=str(number), seeds=(1,)))
        store.set_state(kept.id, "done")
    assert [each.work.text for each in store.history("ann")] == ["4", "3", "2", "1"]
    assert store.unfinished() == [waiting]
    assert len(list((tmp_path / "served" / "pictures").iterdir())) == 5
    store.close()


def test_numbers_grow_whatever_the_clock_says(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.add("ann", DrawJob(text="1", seeds=(1,)))
    monkeypatch.setattr("time.time_ns", lambda: 5)
    assert store.add("ann", DrawJob(text="2", seeds=(1,))).number > first.number


def test_a_folder_is_for_one_server_at_a_time(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(CogViewError, match=r"another server uses .*--data"):
        JobStore(tmp_path / "served")
    store.close()
    JobStore(tmp_path / "served").close()


def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CogViewError, match="--data"):
        JobStore(tmp_path / "file")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "jobs.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(CogViewError, match="--data"):
        JobStore(folder)
