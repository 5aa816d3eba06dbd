"""The runs that draw, caption, rank and upscale are called from Python as from the command line."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

import cogview
from cogview.generation.options import CaptionOptions, PictureOptions, UpscaleOptions
from cogview.runs.draw_pictures import draw_pictures
from cogview.runs.drawing_options import (
    CaptionSettings,
    DrawPicturesOptions,
    PictureSettings,
    RankPicturesOptions,
    UpscalePicturesOptions,
    UpscaleSettings,
)
from cogview.runs.rank_pictures import rank_pictures
from cogview.runs.upscale_pictures import upscale_pictures
from tiny import tiny_pipeline_folder


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (PictureSettings, PictureOptions),
        (CaptionSettings, CaptionOptions),
        (UpscaleSettings, UpscaleOptions),
    ],
)
def test_flags_are_the_options_of_python_with_the_same_defaults(settings: type, options: type) -> None:
    assert vars(settings()) == vars(options())
    assert {field.name for field in dataclasses.fields(settings)} == vars(settings()).keys()


def test_a_run_draws_what_the_pipeline_draws_and_does_it_once(tmp_path: Path) -> None:
    model = tiny_pipeline_folder(tmp_path)
    texts = ("a red cat", "一只猫")
    options = DrawPicturesOptions(
        texts=texts,
        num_candidates=2,
        model=str(model),
        device="cpu",
        pictures=PictureSettings(temperature=0.5, sampler="inversion"),
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
    with pytest.raises(cogview.UsageError, match="--sheet-scale must be 1 to 8, got 9"):
        DrawPicturesOptions(texts=("a cat",), sheet_scale=9)
    with (
        pytest.raises(cogview.UsageError, match="no text to draw"),
        draw_pictures(DrawPicturesOptions(model=model)),
    ):
        pass
    picture = (tmp_path / "picture.png",)
    with pytest.raises(cogview.UsageError, match="text is empty"):
        rank_pictures(RankPicturesOptions(text=" ", pictures=picture, model=model))
    with pytest.raises(cogview.UsageError, match="text is empty"):
        upscale_pictures(UpscalePicturesOptions(text=" ", pictures=picture, model=model))
