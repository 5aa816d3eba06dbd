"""The runs that draw, caption, rank and upscale are called from Python as from the command line."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import cogview
from cogview.generation.options import CaptionOptions, PictureOptions, UpscaleOptions
from cogview.runs.caption_and_rank import rank_pictures
from cogview.runs.draw_pictures import draw_pictures
from cogview.runs.drawing_options import (
    CaptionPicturesOptions,
    DrawPicturesOptions,
    RankPicturesOptions,
    UpscalePicturesOptions,
    shared_fields,
)
from cogview.runs.upscale_pictures import upscale_pictures
from tiny import tiny_pipeline_folder


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (DrawPicturesOptions(), PictureOptions()),
        (CaptionPicturesOptions(pictures=()), CaptionOptions()),
        (UpscalePicturesOptions(text="a cat", pictures=()), UpscaleOptions()),
    ],
)
def test_all_that_python_can_ask_for_is_a_flag_with_the_same_default(asked: Any, options: Any) -> None:
    assert shared_fields(asked, type(options)) == vars(options)


@pytest.mark.slow
def test_a_run_draws_what_the_pipeline_draws_and_does_it_once(tmp_path: Path) -> None:
    model = tiny_pipeline_folder(tmp_path)
    texts = ("a red cat", "一只猫")
    options = DrawPicturesOptions(
        texts=texts,
        num_candidates=2,
        model=str(model),
        device="cpu",
        temperature=0.5,
        sampler="inversion",
        out=tmp_path / "out",
    )
    with draw_pictures(options) as drawn:
        pictures = list(drawn.folder.all_pictures())
    assert (drawn.seed, drawn.work.num_pictures) == (0, 4)
    assert [path.name for path in drawn.sheets] == ["contact-sheet.png"]
    expected = cogview.load(model, "cpu").generate(texts, 2, temperature=0.5, sampler="inversion")
    assert [each["text"] for each in pictures] == ["a red cat", "a red cat", "一只猫", "一只猫"]
    for told, picture in zip(pictures, [each for row in expected for each in row], strict=True):
        with Image.open(told["path"]) as image:
            assert image.tobytes() == picture.image.tobytes()
    with draw_pictures(options) as again:
        assert again.folder.path != drawn.folder.path  # that one is finished


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    model = str(tiny_pipeline_folder(tmp_path))
    for wrong, told in (
        (DrawPicturesOptions(texts=("a cat",), sheet_scale=9), "--sheet-scale must be 1 to 8, got 9"),
        (DrawPicturesOptions(model=model), "no text to draw"),
    ):
        with pytest.raises(cogview.UsageError, match=told), draw_pictures(wrong):
            pass
    picture = (tmp_path / "picture.png",)
    with pytest.raises(cogview.UsageError, match="text is empty"):
        rank_pictures(RankPicturesOptions(text=" ", pictures=picture, model=model))
    with pytest.raises(cogview.UsageError, match="text is empty"):
        upscale_pictures(UpscalePicturesOptions(text=" ", pictures=picture, model=model))
