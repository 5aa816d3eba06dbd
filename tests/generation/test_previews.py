"""Pictures that grow: what is shown is what is drawn so far, it costs little, and stopping leaves nothing behind."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview import PictureDone, PicturePreview, PreviewOptions
from cogview.decoding.engine import Engine
from cogview.errors import UsageError
from cogview.generation.pipeline import Pipeline
from cogview.generation.previews import GREY, Previews
from many_tasks import model_of_many_tasks
from tiny import tiny_image_tokenizer

TEXTS = ["a red cat", "两只狗"]
ALWAYS = PreviewOptions(per_second=1e9, max_share=1.0)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(model_of_many_tasks(tmp_path_factory.mktemp("previews")))


def engine_of(pipe: Pipeline) -> Engine:
    return pipe.model.drawing()[0].engine


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=3))
def test_what_is_drawn_is_shown_and_the_rest_is_grey(steps: list[list[int]]) -> None:
    """With a tokenizer whose codes see nothing but their own cells, bands give what whole pictures give."""
    grid, factor = (6, 5), 4
    tokenizer = tiny_image_tokenizer()

    def decode(codes: torch.Tensor, size_pixels: int | None = None) -> torch.Tensor:
        cells = (codes / 16 - 1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return cells[:, None].expand(-1, 3, -1, -1)

    tokenizer.decode = decode  # type: ignore[method-assign, assignment]
    clock = itertools.count()
    previews = Previews[int](tokenizer, grid, ALWAYS, lambda: float(next(clock)))
    codes = np.random.default_rng(0).integers(32, size=(len(steps), 30))
    done = [0] * len(steps)
    for taken in itertools.zip_longest(*steps, fillvalue=0):
        for picture, num in enumerate(taken):
            stop = min(done[picture] + num, 30)
            if stop > done[picture]:
                previews.take(picture, done[picture], codes[picture, done[picture] : stop])
                done[picture] = stop
        for picture, shown, image in previews.due():
            wanted = np.where(np.arange(30) < done[picture], codes[picture], -1).reshape(grid)
            np.testing.assert_array_equal(shown.numpy(), wanted)
            level = np.where(wanted < 0, GREY, ((wanted / 16 - 1 + 1) * 127.5).round()).astype(np.uint8)
            whole = level.repeat(factor, 0).repeat(factor, 1)
            np.testing.assert_array_equal(np.asarray(image), np.stack([whole] * 3, axis=-1))


def test_previews_cost_no_more_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, now = tiny_image_tokenizer(), [0.0]
    really, spent = tokenizer.decode, [0.0]

    def decode(codes: torch.Tensor) -> torch.Tensor:
        seconds = 0.01 * codes.shape[0] * codes.shape[1]
        now[0] += seconds
        spent[0] += seconds
        return really(codes)

    monkeypatch.setattr(tokenizer, "decode", decode)
    previews = Previews[int](
        tokenizer, (16, 4), PreviewOptions(per_second=10, max_share=0.05), lambda: now[0]
    )
    times: list[list[float]] = [[], [], []]
    first = None
    for place in range(64):
        for picture in range(3):
            previews.take(picture, place, np.array([3]))
        for picture, codes, _ in previews.due():
            assert int((codes >= 0).sum()) == place + 1
            times[picture].append(now[0])
        first = first or spent[0]
        assert spent[0] <= 0.05 * now[0] + first
        now[0] += 0.5
    assert spent[0] >= 0.03 * now[0]  # what may be spent is
    assert all(len(each) >= 5 for each in times)  # each in its turn
    assert all(later - earlier >= 0.1 for each in times for earlier, later in itertools.pairwise(each))


@pytest.mark.parametrize(
    "options", [{}, {"keep": 2}, {"keep": 2, "upscale": 2, "upscaler": "upscale"}], ids=str
)
@pytest.mark.slow
def test_a_stream_gives_what_generate_gives_and_growing_pictures_before(
    pipe: Pipeline, options: dict
) -> None:
    wanted = pipe.generate(TEXTS, 3, seed=2, **options)
    progress: list[tuple[int, int]] = []
    shown: dict[tuple[int, int], list[torch.Tensor]] = {}
    done: dict[tuple[int, int], PictureDone] = {}
    stream = pipe.stream(
        TEXTS, 3, seed=2, previews=ALWAYS, progress=lambda *now: progress.append(now), **options
    )
    for event in stream:
        if isinstance(event, PicturePreview):
            assert (event.text_index, event.seed) not in {
                (each.text_index, each.picture.seed) for each in done.values()
            }
            assert event.text == TEXTS[event.text_index]
            assert event.image.size == (16, 16)
            shown.setdefault((event.text_index, event.seed), []).append(event.codes)
        else:
            done[event.text_index, event.place] = event
    assert progress[-1][0] == progress[-1][1]
    assert sorted(done) == [(text, place) for text in range(2) for place in range(len(wanted[0]))]
    drawn = pipe.generate_codes(TEXTS, 3, 2)
    assert shown
    for (text, seed), pictures in shown.items():
        nums = []
        for codes in pictures:
            num = int((codes >= 0).sum())
            assert torch.equal(codes.flatten()[:num], drawn[text, seed - 2].flatten()[:num])
            assert (codes.flatten()[num:] == -1).all()
            nums.append(num)
        assert nums == sorted(set(nums))
    for (text, place), event in done.items():
        picture = wanted[text][place]
        assert (event.picture.seed, event.picture.text) == (picture.seed, picture.text)
        assert event.picture.caption_loss == picture.caption_loss
        assert torch.equal(event.picture.codes, picture.codes)
        assert np.array_equal(np.asarray(event.picture.image), np.asarray(picture.image))
        assert event.picture.num_passes > 0
    if "upscale" not in options and "keep" not in options:  # those that are ranked are shown whole before
        return
    assert any((pictures[-1] >= 0).all() for pictures in shown.values())


@pytest.mark.parametrize("options", [{}, {"keep": 1}, {"upscale": 4, "upscaler": "upscale"}], ids=str)
@pytest.mark.parametrize("num_events", [0, 1, 4])
@pytest.mark.slow
def test_a_stream_that_is_closed_leaves_nothing_behind(
    pipe: Pipeline, options: dict, num_events: int
) -> None:
    engine = engine_of(pipe)
    stream = pipe.stream(TEXTS, 20, seed=2, previews=ALWAYS, **options)
    for _ in itertools.islice(stream, num_events):
        pass
    assert engine.is_idle != bool(num_events)
    stream.close()
    assert engine.is_idle
    assert engine._scheduler.num_held_pages == 0
    assert list(stream) == []
    [picture] = pipe.generate("a dog", 1, seed=9)
    assert torch.equal(picture.codes, pipe.generate_codes("a dog", 1, 9)[0, 0])


@pytest.mark.slow
def test_what_is_done_is_not_shown_again_as_a_preview(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where previews come seldom, a picture may be ranked and done before it was shown."""
    due, times = Previews.due, itertools.count()
    monkeypatch.setattr(Previews, "due", lambda self: due(self) if next(times) % 5 == 4 else [])
    done: set[tuple[int, int]] = set()
    for event in pipe.stream(TEXTS, 3, keep=2, seed=2, previews=ALWAYS):
        if isinstance(event, PictureDone):
            done.add((event.text_index, event.picture.seed))
        else:
            assert (event.text_index, event.seed) not in done
    assert len(done) == 4


@pytest.mark.slow
def test_what_is_not_kept_is_shown_whole_at_the_end(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Previews, "due", lambda self: [])  # there was no time for any
    codes = pipe.generate_codes(TEXTS, 3, 2)
    events = list(pipe.stream(TEXTS, 3, keep=2, seed=2, previews=ALWAYS))
    done = {(each.text_index, each.picture.seed) for each in events if isinstance(each, PictureDone)}
    shown = [each for each in events if isinstance(each, PicturePreview)]
    assert len(shown) == 2
    for each in shown:
        assert (each.text_index, each.seed) not in done
        assert torch.equal(each.codes, codes[each.text_index, each.seed - 2])
        assert (np.asarray(each.image) != GREY).any()


def test_an_error_in_a_callback_stops_the_drawing(pipe: Pipeline) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pipe.generate("a dog", 20, progress=failing)
    assert engine_of(pipe).is_idle
    assert engine_of(pipe)._scheduler.num_held_pages == 0


def test_a_callback_sees_growing_pictures(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Previews, "__init__", always(Previews.__init__))
    seen: list[PicturePreview] = []
    pictures = pipe.generate(TEXTS, 2, seed=2, on_preview=seen.append)
    assert {each.text_index for each in seen} == {0, 1}
    assert torch.equal(pictures[0][1].codes, pipe.generate(TEXTS, 2, seed=2)[0][1].codes)


def always(really):  # type: ignore[no-untyped-def]
    return lambda self, tokenizer, grid, options: really(self, tokenizer, grid, ALWAYS)


def test_what_makes_no_sense_is_told_at_once(pipe: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="num_candidates"):
        pipe.stream("a dog", 0)
    for wrong in ({"per_second": 0.0}, {"max_share": 0.0}, {"max_share": 1.5}, {"per_second": float("nan")}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            PreviewOptions(**wrong)
