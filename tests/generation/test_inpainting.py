"""A part of a picture is drawn anew, and all else stands: its codes, and its pixels if asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cogview.errors import UsageError
from cogview.generation.inpainting import InpaintingMask
from cogview.generation.pictures import codes_of
from cogview.generation.pipeline import Pipeline
from tiny import tiny_model

TEXT = "a red cat above a dog"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tiny_model(tmp_path_factory.mktemp("given"), guidance=1.5))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, size=(16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("mask", "is_drawn"),
    [
        ("upper", np.s_[:2]),
        ("lower", np.s_[2:]),
        ("left", np.s_[:, :2]),
        ("right", np.s_[:, 2:]),
    ],
)
@pytest.mark.slow
def test_a_half_is_drawn_and_the_other_stands(
    pipe: Pipeline, picture: Image.Image, mask: str, is_drawn: tuple[slice, ...]
) -> None:
    wanted = np.zeros((4, 4), dtype=bool)
    wanted[is_drawn] = True
    np.testing.assert_array_equal(InpaintingMask(mask, (4, 4), 4).of(0), wanted)
    given = codes_of(pipe.model, picture, pipe.template)[0]
    drawn = pipe.generate_codes(TEXT, 5, image=picture, mask=mask)[0].numpy()
    assert (drawn[:, ~wanted] == given[~wanted]).all()
    assert (drawn[:, wanted] != given[wanted]).any()
    assert len({each.tobytes() for each in drawn}) > 1
    # The same from codes, and alone.
    again = pipe.generate_codes(TEXT, 1, 3, image=torch.from_numpy(given), mask=mask)[0, 0]
    np.testing.assert_array_equal(again.numpy(), drawn[3])


def test_a_share_is_drawn_elsewhere_for_each_seed(pipe: Pipeline, picture: Image.Image) -> None:
    given = codes_of(pipe.model, picture, pipe.template)[0]
    drawn = pipe.generate_codes(TEXT, 6, image=picture, mask=0.25)[0].numpy()
    places = [InpaintingMask("0.25", (4, 4), 4).of(seed) for seed in range(6)]
    assert all(each.sum() == 4 for each in places)
    assert len({each.tobytes() for each in places}) > 1
    for each, is_drawn in zip(drawn, places, strict=True):
        assert (each[~is_drawn] == given[~is_drawn]).all()
    assert InpaintingMask(1.0, (4, 4), 4).of(0).all()


def test_a_code_is_drawn_where_the_mask_is_white_and_other_pixels_are_kept(
    pipe: Pipeline, picture: Image.Image, tmp_path: Path
) -> None:
    white = np.zeros((16, 16), dtype=np.uint8)
    white[5, 9] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    picture.save(tmp_path / "picture.png")
    places = InpaintingMask(tmp_path / "mask.png", (4, 4), 4).of(0)
    assert np.argwhere(places).tolist() == [[1, 2]]
    options = {"image": tmp_path / "picture.png", "mask": str(tmp_path / "mask.png")}
    kept = pipe.generate(TEXT, 3, keeps_pixels=True, **options)  # type: ignore[arg-type]
    for each in kept:
        differs = (np.asarray(each.image) != np.asarray(picture)).any(axis=2)
        assert not differs[white == 0].any()
    by_code = pipe.generate(TEXT, 1, keeps_pixels=True, image=picture, mask="lower")[0]
    assert (np.asarray(by_code.image)[:8] == np.asarray(picture)[:8]).all()
    plain = pipe.generate(TEXT, 3, **options)  # type: ignore[arg-type]
    assert all(torch.equal(one.codes, other.codes) for one, other in zip(kept, plain, strict=True))
    assert np.asarray(plain[0].image).tolist() != np.asarray(kept[0].image).tolist()


def test_candidates_are_ranked_by_how_probable_the_codes_behind_them_are(
    pipe: Pipeline, picture: Image.Image
) -> None:
    """Against logits of the plain transformer."""
    best = pipe.generate(TEXT, 6, keep=3, image=picture, mask="upper", rank_by="fit")
    every = pipe.generate_codes(TEXT, 6, image=picture, mask="upper")[0]
    losses = []
    pieces = pipe.text_tokenizer.encode(TEXT)
    for codes in every.numpy():
        whole = pipe.template.build(pieces, codes)
        tokens, positions = (torch.from_numpy(array)[None] for array in (whole.tokens, whole.positions))
        with torch.no_grad():
            logits = pipe.transformer(tokens, positions)[0, :, : pipe.template.vocabulary.num_image_codes]
        start = len(whole.tokens) - 1 - 16
        log_p = torch.log_softmax(logits[start - 1 + 8 : start + 15], dim=-1)
        losses.append(-float(log_p.gather(1, torch.from_numpy(codes.ravel()[8:, None])).mean()))
    assert [each.seed for each in best] == np.argsort(losses)[:3].tolist()
    assert [each.fit_loss for each in best] == pytest.approx(sorted(losses)[:3], abs=1e-4)
    assert best[0].caption_loss is None


def test_what_makes_no_sense_is_refused_in_one_line(
    pipe: Pipeline, picture: Image.Image, tmp_path: Path
) -> None:
    for options, problem in (
        ({"image": picture}, "an image needs a mask"),
        ({"mask": "lower"}, "an image needs a mask"),
        ({"image": picture, "mask": "loer"}, "there is no mask loer: give upper, lower, left, right"),
        ({"image": picture, "mask": 0.0}, "must lie over 0 and be at most 1, got 0"),
        ({"image": picture, "mask": 1.5}, "must lie over 0 and be at most 1, got 1.5"),
        ({"image": picture, "mask": Image.new("L", (16, 16))}, "the mask has no white"),
        (
            {"image": picture, "mask": Image.new("L", (30, 20), 255)},
            "the mask is 30 x 20 pixels and the picture",
        ),
        ({"rank_by": "fit"}, "are for an image"),
        ({"keeps_pixels": True}, "are for an image"),
        (
            {"image": torch.zeros(4, 4, dtype=torch.int64), "mask": "lower", "keeps_pixels": True},
            "no pixels to keep",
        ),
        ({"image": picture, "mask": "lower", "rank_by": "fit"}, "no given code comes after"),
    ):
        with pytest.raises(UsageError, match=problem):
            pipe.generate(TEXT, 2, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_picture_that_was_drawn_is_taken_by_its_codes(pipe: Pipeline) -> None:
    [drawn] = pipe.generate(TEXT, 1, seed=3)
    [again] = pipe.generate(TEXT, 1, seed=4, image=drawn, mask="lower", keeps_pixels=True)
    [by_codes] = pipe.generate(TEXT, 1, seed=4, image=drawn.codes, mask="lower")
    assert torch.equal(again.codes, by_codes.codes)
    upper = np.asarray(drawn.image)[: drawn.image.height // 2]
    assert np.array_equal(np.asarray(again.image)[: drawn.image.height // 2], upper)
