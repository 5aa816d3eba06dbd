"""The paper's protocol on pictures whose figures are known: blur, contrast, names, and the curves over candidates."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from cogview.errors import CogViewError
from cogview.evaluation.backbone import Features
from cogview.evaluation.distances import frechet_distance
from cogview.evaluation.plots import plot_figures
from cogview.evaluation.scores import inception_score
from cogview.evaluation.text_to_image import (
    RADII,
    SetFeatures,
    candidate_points,
    candidates_curve,
    choose_at_random,
    choose_best,
    compare,
    extract_features,
    figure_name,
)
from cogview.image.pixels import image_to_array

pytestmark = pytest.mark.filterwarnings("ignore:.*pictures are too few")


class Eye:
    """Sees mean colours and how pixels differ from their neighbours."""

    name = "eye"

    def __call__(self, images: torch.Tensor) -> Features:
        edges = (images[..., 1:] - images[..., :-1]).square().mean((2, 3))
        pooled = torch.cat([images.mean((2, 3)), edges], 1)
        return Features(pooled=pooled, maps=(), logits=5 * pooled)


def photographs(num: int, seed: int, noise: float = 0.0) -> Iterator[Image.Image]:
    """Yield smooth pictures of random colours, with noise on each pixel."""
    draw = np.random.default_rng(seed)
    for _ in range(num):
        small = Image.fromarray(draw.integers(64, 192, (3, 3, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC), dtype=float)
        noisy = smooth + noise * draw.standard_normal(smooth.shape)
        yield Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def test_pictures_are_given_contrast_and_then_blurred() -> None:
    pictures = list(photographs(5, 0, noise=30))
    found = extract_features(Eye(), iter(pictures), (0, 2), contrast=1.5, batch_size=2)
    shown = [ImageEnhance.Contrast(each).enhance(1.5) for each in pictures]
    for radius, seen in found.items():
        blurred = [each.filter(ImageFilter.GaussianBlur(radius)) if radius else each for each in shown]
        expected = Eye()(torch.from_numpy(np.stack([image_to_array(each) for each in blurred])))
        torch.testing.assert_close(seen.pooled, expected.pooled)
    plain = extract_features(Eye(), iter(pictures), (0,))[0].pooled
    assert not torch.allclose(plain, found[0].pooled)
    with pytest.raises(CogViewError, match="no pictures"):
        extract_features(Eye(), iter([]))


class Edges:
    """Sees only how pixels differ from their neighbours."""

    name = "inception"

    def __call__(self, images: torch.Tensor) -> Features:
        return Features(pooled=Eye()(images).pooled[:, 3:], maps=())


def test_blur_hides_fine_texture_from_the_distance() -> None:
    """What differs in texture alone is the nearer, the more both sides are blurred (the purpose of FID-k)."""
    real, drawn = (
        extract_features(Edges(), photographs(30, 0)),
        extract_features(Edges(), photographs(30, 0, noise=20)),
    )
    figures = compare(real, drawn, "inception")
    distances = [figures[f"FID-{radius}"]["value"] for radius in RADII]
    assert all(later < 0.1 * earlier for earlier, later in pairwise(distances[:3]))
    assert max(distances[3:]) < distances[2]
    same = compare(real, real, "inception")
    assert all(same[f"FID-{radius}"]["value"] < 1e-12 for radius in RADII)
    assert same["KID-0"]["low"] <= same["KID-0"]["value"] <= same["KID-0"]["high"]


def test_only_inceptions_figures_have_the_published_names() -> None:
    seen = extract_features(Eye(), photographs(25, 1))
    losses = np.linspace(1, 2, 25)
    names = list(compare(seen, seen, "inception", losses))
    assert names == [f"{each}-{radius}" for each in ("FID", "KID") for radius in (0, 1, 2, 4, 8)] + [
        "IS",
        "CapLoss",
    ]
    names = list(compare(seen, seen, "eye"))
    assert names[0] == "frechet_distance_eye_blur_0"
    assert names[5] == "kernel_distance_eye_blur_0"
    assert names[-1] == "class_score_eye"
    assert not any("FID" in name or "IS" in name or "KID" in name or "inception" in name for name in names)
    assert figure_name("kernel", "inception", 4) == "KID-4"


def test_too_few_pictures_for_the_features_are_told_once() -> None:
    seen = {radius: SetFeatures(pooled=torch.randn(24, 24), logits=None) for radius in RADII}
    with pytest.warns(UserWarning, match="24 pictures are too few for 24 features") as warned:
        compare(seen, seen, "eye")
    assert len(warned) == 1


def test_the_points_of_the_curve_are_all_of_a_few_and_some_of_many() -> None:
    assert candidate_points(1) == [1]
    assert candidate_points(4) == [1, 2, 3, 4]
    many = candidate_points(60)
    assert many[:4] == [1, 2, 3, 4]
    assert many[-1] == 60
    assert len(many) < 12


def test_the_best_and_a_random_one_of_the_first_candidates_are_chosen() -> None:
    draw = np.random.default_rng(0)
    costs = draw.random((3000, 5))
    best = choose_best(costs, [1, 3, 5])
    for row, point in zip(best, (1, 3, 5), strict=True):
        assert all(cost[choice] == min(cost[:point]) for cost, choice in zip(costs, row, strict=True))
    random = choose_at_random(3000, [1, 3, 5])
    assert not random[0].any()
    for row, point in zip(random, (1, 3, 5), strict=True):
        counts = np.bincount(row, minlength=5)
        assert not counts[point:].any()
        assert counts[:point] == pytest.approx(3000 / point, rel=0.12)


def test_the_curve_looks_at_each_chosen_picture_once_and_is_what_it_is_by_hand() -> None:
    draw = torch.Generator().manual_seed(0)
    pooled, logits = torch.randn(30, 4, 6, generator=draw), torch.randn(30, 4, 5, generator=draw)
    real = SetFeatures(pooled=torch.randn(30, 6, generator=draw), logits=None)
    losses = np.random.default_rng(0).random((30, 4))
    points = [1, 2, 4]
    choices = {"CapLoss": choose_best(losses, points), "random": choose_at_random(30, points)}
    looked: list[tuple[int, int]] = []

    def look_at(captions: np.ndarray, candidates: np.ndarray) -> SetFeatures:
        looked.extend(zip(captions.tolist(), candidates.tolist(), strict=True))
        return SetFeatures(pooled=pooled[captions, candidates], logits=logits[captions, candidates])

    curve = candidates_curve(choices, points, look_at, real, "eye", losses)
    assert len(looked) == len(set(looked)) < 30 * 4
    everybody = np.arange(30)
    for line in curve:
        row = choices[line["choice"]][points.index(line["num_candidates"])]
        expected = frechet_distance(real.pooled, pooled[everybody, row])
        assert line["frechet_distance_eye_blur_0"] == pytest.approx(expected)
        assert line["class_score_eye"] == pytest.approx(inception_score(logits[everybody, row])[0])
        assert line["CapLoss"] == pytest.approx(losses[everybody, row].mean())
    means = [line["CapLoss"] for line in curve if line["choice"] == "CapLoss"]
    assert means == sorted(means, reverse=True)


@pytest.mark.slow
def test_figures_are_plotted(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figures = {figure_name("frechet", "eye", radius): {"value": 9.0 - radius} for radius in RADII}
    assert [path.name for path in plot_figures(figures, [], "eye", tmp_path)] == ["blur-eye.png"]
    curve = [
        {"choice": choice, "num_candidates": number, "frechet_distance_eye_blur_0": 1.0 / number}
        for choice in ("CapLoss", "random")
        for number in (1, 2)
    ]
    for path in plot_figures(figures, curve, "eye", tmp_path):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
    assert (tmp_path / "candidates-eye.png").is_file()
