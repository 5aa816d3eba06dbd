"""Any number of callers are drawn for side by side, and each gets what it gets alone, to the bit."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cogview.decoding.request import Progressed, SequenceResult
from cogview.errors import CogViewError
from cogview.generation.job_scheduler import JobDone, JobEvent, JobFailed, JobScheduler, PictureJob
from cogview.generation.options import PictureOptions
from cogview.generation.picture_events import CodesDrawn, GeneratedImage, PictureDone, PicturePreview
from cogview.generation.picture_task import PictureTask
from cogview.generation.pipeline import Pipeline
from cogview.generation.previews import PreviewOptions
from cogview.generation.ranker import CaptionRanking
from many_tasks import model_of_many_tasks

ALWAYS = PreviewOptions(per_second=1e6, max_share=1)
KINDS = (
    {"num": 2},
    {"num": 3, "keep": 2},
    {"num": 1, "upscale": 2, "upscaler": "upscale"},
    {"num": 2, "adapter": "style", "temperature": 0.7},
    {"num": 2, "guidance": 2.0, "top_k": 5},
)
TEXTS = ("a red cat", "两只狗", "a dog")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(model_of_many_tasks(tmp_path_factory.mktemp("tasks")))


@pytest.fixture(scope="module")
def alone(pipe: Pipeline) -> dict[tuple[int, int], list[str]]:
    """The pictures of each kind and text, drawn by themselves."""
    found = {}
    for kind, options in enumerate(KINDS):
        for text, words in enumerate(TEXTS):
            plain = {name: value for name, value in options.items() if name not in ("num", "keep")}
            captioner = {"captioner": "caption"} if "keep" in options else {}
            pictures = pipe.generate(words, options["num"], options.get("keep"), 5, **plain, **captioner)  # type: ignore[arg-type]
            found[kind, text] = [pixels(each) for each in pictures]
    return found


def pixels(picture: GeneratedImage) -> str:
    return hashlib.sha256(np.asarray(picture.image).tobytes()).hexdigest()


def order(
    pipe: Pipeline, kind: int, text: int, client: tuple[str, ...] = ("a",), is_previewed: bool = True
) -> PictureJob:
    options = dict(KINDS[kind])
    num, keep = options.pop("num"), options.pop("keep", None)
    if keep is not None:
        options["captioner"] = "caption"
    task = PictureTask.of(pipe.model, PictureOptions(**options), num, keep, 5)  # type: ignore[arg-type]
    (prompt,) = task.prompts([TEXTS[text]], range(5, 5 + num))  # type: ignore[arg-type]
    return PictureJob(task=task, prompt=prompt, client=client, is_previewed=is_previewed)


def all_events(scheduler: JobScheduler) -> Iterator[tuple[PictureJob, JobEvent]]:
    while not scheduler.is_idle:
        yield from scheduler.step()


def engine_of(pipe: Pipeline):  # type: ignore[no-untyped-def]
    return pipe.model.drawing()[0].engine


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(KINDS) - 1), st.integers(0, len(TEXTS) - 1), st.integers(0, 3), st.booleans()
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([None, 1]),
)
@pytest.mark.slow
def test_orders_that_come_and_go_give_what_they_give_alone(
    pipe: Pipeline,
    alone: dict[tuple[int, int], list[str]],
    schedule: list[tuple[int, int, int, bool]],
    num_slots: int | None,
    max_decoded: int | None,
) -> None:
    with JobScheduler(previews=ALWAYS, num_slots=num_slots, max_decoded=max_decoded) as scheduler:
        kinds: dict[PictureJob, tuple[int, int]] = {}
        drawn: dict[PictureJob, dict[int, str]] = {}
        ended: list[PictureJob] = []

        def step() -> None:
            for each, told in scheduler.step():
                assert each not in ended
                if isinstance(told, PictureDone):
                    drawn.setdefault(each, {})[told.place] = pixels(told.picture)
                elif isinstance(told, JobDone):
                    ended.append(each)
                else:
                    assert isinstance(told, CodesDrawn | PicturePreview)

        aborted = []
        for number, (kind, text, num_steps, is_aborted) in enumerate(schedule):
            new = order(pipe, kind, text, ("account", str(number % 2)))
            kinds[new] = kind, text
            scheduler.add(new)
            for _ in range(num_steps):
                step()
            if is_aborted and new not in ended:
                scheduler.abort(new)
                aborted.append(new)
                ended.append(new)  # nothing more may be told of it
        while not scheduler.is_idle:
            step()
    for each, key in kinds.items():
        if each not in aborted:
            assert [drawn[each][place] for place in sorted(drawn[each])] == alone[key]
    assert engine_of(pipe).is_idle
    assert engine_of(pipe)._scheduler.num_held_pages == 0


def test_one_that_fails_leaves_the_others_alone(
    pipe: Pipeline, alone: dict[tuple[int, int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = order(pipe, 1, 0), order(pipe, 1, 1)

    assert isinstance(bad.task.ranking, CaptionRanking)
    really = CaptionRanking.loss

    def loss(self: CaptionRanking, scored: SequenceResult, seed: int) -> float:
        if self is bad.task.ranking:
            raise CogViewError("no loss")
        return really(self, scored, seed)

    monkeypatch.setattr(CaptionRanking, "loss", loss)
    told: dict[PictureJob, list[JobEvent]] = {good: [], bad: []}
    with JobScheduler() as scheduler:
        scheduler.add(good)
        scheduler.add(bad)
        for each, event in all_events(scheduler):
            told[each].append(event)
    assert isinstance(told[bad][-1], JobFailed)
    assert str(told[bad][-1].error) == "no loss"
    assert sum(isinstance(event, JobFailed) for event in told[bad]) == 1
    pictures = {event.place: event.picture for event in told[good] if isinstance(event, PictureDone)}
    assert [pixels(pictures[place]) for place in sorted(pictures)] == alone[1, 0]
    assert engine_of(pipe).is_idle


def test_a_picture_that_cannot_be_made_fails_its_order_and_no_other(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> object:
        raise MemoryError("too little")

    monkeypatch.setattr(type(pipe.model.decoder), "decode_each", no_memory)
    with JobScheduler() as scheduler:
        scheduler.add(order(pipe, 0, 0))
        told = [event for _, event in all_events(scheduler)]
    assert isinstance(told[-1], JobFailed)
    assert isinstance(told[-1].error, MemoryError)
    monkeypatch.undo()
    with JobScheduler() as scheduler:
        scheduler.add(order(pipe, 0, 0))
        assert isinstance(list(all_events(scheduler))[-1][1], JobDone)


def test_whoever_comes_new_is_begun_beside_a_long_list(pipe: Pipeline) -> None:
    with JobScheduler(num_slots=4, num_reserved=1) as scheduler:
        for _ in range(6):
            scheduler.add(order(pipe, 0, 0, ("long",)))
        list(scheduler.step())
        new = order(pipe, 0, 1, ("new",))
        scheduler.add(new)
        begun = [each for each, told in scheduler.step() if isinstance(told, CodesDrawn)]
        assert new in begun
        assert len(list(all_events(scheduler))) > 0


def test_a_stopped_order_is_told_of_no_more_even_in_the_step_that_is_read(pipe: Pipeline) -> None:
    first, other = order(pipe, 0, 0), order(pipe, 0, 1)
    with JobScheduler() as scheduler:
        scheduler.add(first)
        scheduler.add(other)
        seen = []
        for each, _ in all_events(scheduler):
            seen.append(each)
            scheduler.abort(other if each is first else first)
    assert len(set(seen)) == 1
    assert not isinstance(seen[0], Progressed)
    assert engine_of(pipe)._scheduler.num_held_pages == 0


def test_whoever_has_nothing_is_drawn_before_others_until_there_is_something_to_see(
    pipe: Pipeline, alone: dict[tuple[int, int], list[str]]
) -> None:
    prompt = PreviewOptions(per_second=1e-3, max_share=1e-6, is_prompt=True)
    with JobScheduler(
        previews=prompt, num_slots=4, num_reserved=1, max_decoded=1, shows_rest=False
    ) as scheduler:
        old = [order(pipe, 0, 0, ("account", "old"), False) for _ in range(4)]
        for each in old:
            scheduler.add(each)
        list(scheduler.step())
        new = order(pipe, 0, 1, ("account", "new"))
        scheduler.add(new)
        told: list[tuple[PictureJob, JobEvent]] = []
        while not any(isinstance(event, PicturePreview) and each is new for each, event in told):
            told += scheduler.step()
        drawn = [each for each, event in told if isinstance(event, CodesDrawn)]
        assert set(drawn) == {new}
        told += all_events(scheduler)
    assert {each for each, event in told if isinstance(event, JobDone)} == {*old, new}
    previews = [each for each, event in told if isinstance(event, PicturePreview)]
    assert new in previews
    pictures = {
        event.place: pixels(event.picture)
        for each, event in told
        if each is new and isinstance(event, PictureDone)
    }
    assert [pictures[place] for place in sorted(pictures)] == alone[0, 1]
