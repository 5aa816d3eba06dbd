"""Text-to-image evaluation: blurred distances, Inception Score, CapLoss, and quality by number of candidates.

Letters of the shapes: n captions, c candidates of each, p numbers of candidates.

Paper: section 4.1 (table 1, figure 9).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from cogview.errors import CogViewError
from cogview.evaluation.backbone import Backbone
from cogview.evaluation.distances import Gaussian, warn_if_few
from cogview.evaluation.scores import NUM_SPLITS, inception_score, kernel_distance, mean_of
from cogview.image.pixels import image_to_array

RADII = (0, 1, 2, 4, 8)
_MOST_POINTS = 12  # of the curves over candidates


@dataclass(frozen=True, kw_only=True, eq=False)
class SetFeatures:
    """Features of a set of pictures.

    Args:
        pooled: pooled features, on the CPU.
        logits: class logits, on the CPU; None if the backbone has no classes.
    """

    pooled: Float[Tensor, "n d"]
    logits: Float[Tensor, "n v"] | None

    def take(self, rows: Int64[np.ndarray, "m"]) -> "SetFeatures":
        """Return the features of some of the pictures."""
        chosen = torch.from_numpy(rows)
        logits = None if self.logits is None else self.logits[chosen]
        return SetFeatures(pooled=self.pooled[chosen], logits=logits)


def figure_name(kind: str, backbone: str, radius: int = 0) -> str:
    """Return the name of a figure; only Inception's have the published names.

    Args:
        kind: "frechet", "kernel" or "score".
        backbone: name of the backbone.
        radius: radius of the blur, in pixels.
    """
    if kind == "score":
        return "IS" if backbone == "inception" else f"class_score_{backbone}"
    if backbone == "inception":
        return f"{'FID' if kind == 'frechet' else 'KID'}-{radius}"
    return f"{kind}_distance_{backbone}_blur_{radius}"


def blurred(image: Image.Image, radius: int) -> Image.Image:
    """Apply Pillow's Gaussian blur; a radius of 0 changes nothing."""
    return image.filter(ImageFilter.GaussianBlur(radius)) if radius else image


@torch.inference_mode()
def extract_features(
    backbone: Backbone,
    pictures: Iterable[Image.Image],
    radii: Sequence[int] = RADII,
    *,
    contrast: float = 1.0,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> dict[int, SetFeatures]:
    """Compute the features of pictures at each blur.

    Args:
        backbone: feature network.
        pictures: RGB, all of one size.
        radii: radii of the blur, in pixels of these pictures.
        contrast: factor of the contrast, applied before the blur; 1 changes nothing, the paper has 1.5 for drawn
            pictures.
        batch_size: pictures at a time.
        device: device of the backbone.
        progress: called with the number of pictures done.

    Raises:
        CogViewError: there are no pictures.
    """
    pooled: dict[int, list[Tensor]] = {radius: [] for radius in radii}
    logits: dict[int, list[Tensor]] = {radius: [] for radius in radii}
    num_done = 0
    for batch in _batches(pictures, batch_size):
        shown = [ImageEnhance.Contrast(each).enhance(contrast) if contrast != 1 else each for each in batch]
        for radius in radii:
            pixels = np.stack([image_to_array(blurred(each, radius)) for each in shown])
            features = backbone(torch.from_numpy(pixels).to(device))
            pooled[radius].append(features.pooled.float().cpu())
            if features.logits is not None:
                logits[radius].append(features.logits.float().cpu())
        num_done += len(batch)
        if progress is not None:
            progress(num_done)
    if not num_done:
        raise CogViewError("There are no pictures to measure: give some.")
    return {
        radius: SetFeatures(
            pooled=torch.cat(pooled[radius]), logits=torch.cat(logits[radius]) if logits[radius] else None
        )
        for radius in radii
    }


def _batches(pictures: Iterable[Image.Image], batch_size: int) -> Iterator[list[Image.Image]]:
    remaining = iter(pictures)
    while batch := list(islice(remaining, batch_size)):
        yield batch


def compare(
    real: Mapping[int, SetFeatures],
    drawn: Mapping[int, SetFeatures],
    backbone: str,
    caption_losses: Float[np.ndarray, "n"] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the figures of drawn pictures by name.

    Args:
        real: features of real pictures, by radius of the blur.
        drawn: features of drawn pictures, by radius of the blur.
        backbone: name of the backbone.
        caption_losses: CapLoss of each drawn picture and its caption, if there is a captioner.

    Returns:
        Each with its `value`; means and kernel distances with `low` and `high`, the ends of their 95 % interval; the
        score with the `deviation` over `num_splits` parts.

    Raises:
        CogViewError: there are too few pictures.
    """
    figures: dict[str, dict[str, Any]] = {}
    for radius, one in real.items():
        other = drawn[radius]
        if not figures:
            warn_if_few(min(len(one.pooled), len(other.pooled)), one.pooled.shape[1])
        distance = Gaussian.of(one.pooled).distance(Gaussian.of(other.pooled))
        figures[figure_name("frechet", backbone, radius)] = {"value": distance}
    for radius, one in real.items():
        kernel = kernel_distance(one.pooled, drawn[radius].pooled)
        figures[figure_name("kernel", backbone, radius)] = asdict(kernel)
    logits = drawn[0].logits
    if logits is not None:
        mean, deviation = inception_score(logits)
        name = figure_name("score", backbone)
        figures[name] = {"value": mean, "deviation": deviation, "num_splits": NUM_SPLITS}
    if caption_losses is not None:
        figures["CapLoss"] = asdict(mean_of(caption_losses))
    return figures


def candidate_points(num_candidates: int) -> list[int]:
    """Return the numbers of candidates to measure quality for, in geometric steps."""
    return sorted({round(each) for each in np.geomspace(1, num_candidates, _MOST_POINTS)})


def choose_best(costs: Float[np.ndarray, "n c"], points: Sequence[int]) -> Int64[np.ndarray, "p n"]:
    """Return each caption's candidate of lowest cost among the first candidates, for each number of candidates.

    Args:
        costs: CapLoss of each candidate, or another cost.
        points: numbers of candidates.
    """
    return np.stack([costs[:, :point].argmin(1) for point in points]).astype(np.int64)


def choose_at_random(num_captions: int, points: Sequence[int], seed: int = 0) -> Int64[np.ndarray, "p n"]:
    """Return a random candidate of each caption among the first candidates, for each number of candidates.

    Reservoir sampling keeps the choice for most numbers, so that few pictures need features.

    Args:
        num_captions: number of captions.
        points: numbers of candidates, ascending.
        seed: seed of the choice.
    """
    draw = np.random.default_rng(seed)
    chosen = np.zeros(num_captions, dtype=np.int64)
    rows = []
    for number in range(points[-1]):
        chosen = np.where(draw.random(num_captions) * (number + 1) < 1, number, chosen)
        if number + 1 in points:
            rows.append(chosen)
    return np.stack(rows)


def candidates_curve(
    choices: Mapping[str, Int64[np.ndarray, "p n"]],
    points: Sequence[int],
    features_of: Callable[[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]], SetFeatures],
    real: SetFeatures,
    backbone: str,
    caption_losses: Float[np.ndarray, "n c"] | None = None,
) -> list[dict[str, Any]]:
    """Return the figures by way to choose and number of candidates, from one sampling run.

    Args:
        choices: chosen candidate of each caption for each number of candidates, by name of the way to choose.
        points: numbers of candidates.
        features_of: function from captions and candidates to the features of these pictures; called once.
        real: features of real pictures.
        backbone: name of the backbone.
        caption_losses: CapLoss of all candidates.

    Paper: figure 9.
    """
    num_captions = next(iter(choices.values())).shape[1]
    captions = np.arange(num_captions)
    width = max(points)
    wanted = np.unique(np.concatenate([captions * width + row for rows in choices.values() for row in rows]))
    features = features_of(wanted // width, wanted % width)
    truth = Gaussian.of(real.pooled)
    curve: list[dict[str, Any]] = []
    for choice, rows in choices.items():
        for point, row in zip(points, rows, strict=True):
            part = features.take(np.searchsorted(wanted, captions * width + row))
            figures = {figure_name("frechet", backbone): truth.distance(Gaussian.of(part.pooled))}
            if part.logits is not None:
                figures[figure_name("score", backbone)] = inception_score(part.logits)[0]
            if caption_losses is not None:
                figures["CapLoss"] = float(caption_losses[captions, row].mean())
            curve.append({"choice": choice, "num_candidates": point, **figures})
    return curve


def figures_table(result: Mapping[str, Any]) -> list[str]:
    """Format a text-to-image result as lines of Markdown.

    Args:
        result: JSON of `cogview evaluate text-to-image`.
    """
    request = result["request"]
    size = result["size_pixels"]
    lines = [
        f"{request['num_captions']:,} captions x {request['candidates']} candidates, {size} x {size} pixels, "
        f"{result['model']}; the best by {result['chosen_by']}; contrast x {result['contrast']:g}; "
        f"{result['num_resized']:,} of {result['num_real_pictures']:,} real pictures had another size",
        "",
        "| figure | value | 95 % |",
        "|---|---|---|",
    ]
    for name, figure in result["figures"].items():
        interval = ""
        if "low" in figure:
            interval = f"{figure['low']:.4g} to {figure['high']:.4g}"
        elif "deviation" in figure:
            interval = f"deviation over {figure['num_splits']} parts {figure['deviation']:.2g}"
        lines.append(f"| {name} | {figure['value']:.4g} | {interval} |")
    if result["curve"]:
        names = [name for name in result["curve"][0] if name not in ("choice", "num_candidates")]
        lines += [
            "",
            f"| chosen by | of candidates | {' | '.join(names)} |",
            "|---|---|" + "---|" * len(names),
        ]
        for each in result["curve"]:
            values = " | ".join(f"{each[name]:.4g}" for name in names)
            lines.append(f"| {each['choice']} | {each['num_candidates']} | {values} |")
    return lines
