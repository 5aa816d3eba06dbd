"""Drawing, ranking and upscaling side by side gives what they give one after the other, to the bit."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cogview.decoding.batch import Job
from cogview.decoding.engine import Engine
from cogview.errors import UsageError
from cogview.generation import inpainting, pictures
from cogview.generation.captioner import Captioner
from cogview.generation.drawer import Drawer
from cogview.generation.model import LoadedModel
from cogview.generation.options import CodeOptions, PictureOptions
from cogview.generation.picture_events import PictureDone
from cogview.generation.picture_stream import picture_events
from cogview.generation.picture_task import PictureTask
from cogview.generation.pipeline import Pipeline
from cogview.generation.ranker import Ranker, best_of
from cogview.generation.upscaler import Upscaler
from many_tasks import model_of_many_tasks

TEXTS = ["a red cat", "两只狗", "a dog"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(model_of_many_tasks(tmp_path_factory.mktemp("tasks")))


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """What each pass works on."""
    passes: list[Counter[str]] = []
    really = Engine._pass

    def counted(self: Engine, jobs: list[Job]) -> object:
        names = {4: "candidate", 8: "window"}
        passes.append(
            Counter(
                "score" if job.work.request.is_scored else names[job.work.request.num_columns]  # type: ignore[union-attr]
                for job in jobs
            )
        )
        return really(self, jobs)

    monkeypatch.setattr(Engine, "_pass", counted)
    return passes


def in_turn(
    pipe: Pipeline, num: int, keep: int | None, seed: int, factor: int, upscaler: str
) -> list[list[tuple[int, float | None, bytes]]]:
    """Draw all, then rank all, then upscale all, one by one: (seed, loss, codes) of what is kept."""
    model = pipe.model
    made = []
    for text in TEXTS:
        codes = [
            Drawer(model).draw([text], 1, [each], CodeOptions())[0, 0] for each in range(seed, seed + num)
        ]
        losses: list[float | None] = [None] * num
        order = list(range(num))
        if keep is not None:
            scored = [Ranker(model).caption_loss(each, text)[0] for each in codes]
            order, losses = best_of([each.numpy() for each in codes], scored, keep), list(scored)
        row = []
        for number in order:
            high = codes[number]
            if factor > 1:
                chosen = model.super_resolution(upscaler)
                pieces = model.text_tokenizer.encode(text)
                task = PictureTask.of(
                    model, PictureOptions(upscale=factor, upscaler=upscaler), num, keep, seed
                )
                high = chosen.upscale(
                    high[None], [pieces], [seed + number], task.upscale_sampling, factor=factor
                )[0]
            row.append((seed + number, losses[number], high.numpy().tobytes()))
        made.append(row)
    return made


@pytest.mark.parametrize(
    ("keep", "factor", "upscaler"),
    [(None, 1, "upscale"), (2, 1, "upscale"), (None, 4, "upscale"), (2, 2, "upscale"), (2, 2, "other")],
)
@pytest.mark.slow
def test_side_by_side_as_in_turn(
    pipe: Pipeline, kinds: list[Counter[str]], keep: int | None, factor: int, upscaler: str
) -> None:
    options = {"upscale": factor, "upscaler": upscaler} if factor > 1 else {}
    if keep is not None:
        options["captioner"] = "caption"
    num = 2 if factor == 4 else 3
    drawn = pipe.generate(TEXTS, num, keep, 7, **options)  # type: ignore[arg-type]
    together = sum(bool(each["candidate"]) and len(each) > 1 for each in kinds)
    assert bool(together) == (keep is not None or factor > 1)  # ranks and upscales while others are drawn
    got = [[(each.seed, each.caption_loss, each.codes.numpy().tobytes()) for each in row] for row in drawn]
    assert got == in_turn(pipe, num, keep, 7, factor, upscaler)
    for row in drawn:
        for each in row:
            wanted = pipe.model.decoder.decode(each.codes, 16 * factor)
            assert np.array_equal(np.asarray(each.image), np.asarray(wanted))


@pytest.mark.slow
def test_texts_are_taken_as_there_is_room_and_come_as_they_are_done(pipe: Pipeline) -> None:
    task = PictureTask.of(pipe.model, PictureOptions(), 8, None, 0)
    taken: list[int] = []

    def asked():
        for index in range(6):
            taken.append(index)
            yield from task.prompts([TEXTS[index % 3]], range(8), index)

    done: list[tuple[int, int]] = []
    for event in picture_events(task, asked()):
        if isinstance(event, PictureDone):
            if not done:
                assert len(taken) <= 3  # of six
            done.append((event.text_index, event.picture.seed))
    assert sorted(done) == [(text, seed) for text in range(6) for seed in range(8)]


@pytest.mark.slow
def test_each_part_works_by_itself(pipe: Pipeline) -> None:
    model = LoadedModel(pipe.model.parts)
    codes = Drawer(model).draw(["a red cat"], 2, [5], CodeOptions(adapter="style"))
    assert torch.equal(codes, pipe.generate_codes("a red cat", 2, 5, adapter="style"))
    images = list(codes[0])
    assert Captioner(model).caption(images, 2) == pipe.caption(images, 2)
    assert Ranker(model).rank("a dog", images) == pipe.rank("a dog", images)
    with pytest.raises(UsageError, match="several upscalers"):
        Upscaler(model).upscale(images, "a dog")


@pytest.mark.slow
def test_given_pictures_are_read_once_however_many_candidates_there_are(
    pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    Image.fromarray((pixels[..., 0] > 99).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    read: Counter[str] = Counter()
    for module in (inpainting, pictures):
        really = module.read_image

        def counted(path: Path, really=really) -> Image.Image:
            read[Path(path).name] += 1
            return really(path)

        monkeypatch.setattr(module, "read_image", counted)
    options = {"image": tmp_path / "picture.png", "mask": tmp_path / "mask.png", "keeps_pixels": True}
    pipe.generate(["a", "a dog"], 1, **options)  # type: ignore[arg-type]
    once = dict(read)
    pipe.generate(["a", "a dog"], 5, **options)  # type: ignore[arg-type]
    assert read == {name: 2 * num for name, num in once.items()}
    assert once["mask.png"] == 1


def test_what_cannot_be_ranked_by_fit_is_told_before_anything_is_drawn(
    pipe: Pipeline, kinds: list[Counter[str]]
) -> None:
    codes = torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(UsageError, match="no given code comes after"):
        pipe.generate("a dog", 4, image=codes, mask="lower", rank_by="fit")
    with pytest.raises(UsageError, match="no given code comes after"):
        pipe.generate("a dog", 4, image=codes, mask=1.0, rank_by="fit")
    assert not kinds
