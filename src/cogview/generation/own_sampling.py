"""How a model draws best, measured on pictures whose codes are known.

A short run's model is unsure of every code. Cutting its distribution off at some share of the probability then leaves
what is commonest, which on cut-outs is the white ground, and all pictures are white squares. A model that has learnt
more is better for it, since what is cut off is debris. So as much is cut off as leaves the codes drawn nearly as
various as those of true pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.generation.text_to_image import draw, picture_request
from cogview.models.pretrained import PretrainedModel
from cogview.sequence.template import Codes, Pieces

TOP_PS = (0.8, 0.9, 0.95, 1.0)
"""Tried in this order; the last draws from all codes, and is what is left if the others cut too much off."""
MIN_VARIETY = 0.9


@dataclass(frozen=True, kw_only=True)
class MeasuredTopP:
    """The share of the probability that a model draws from, and why.

    Args:
        top_p: the least that leaves enough variety.
        true_entropy_nats: of the codes of the true pictures, all places together.
        entropy_nats: of the codes drawn for the same texts, by the top-p that was tried.
        num_pictures: of either kind.
    """

    top_p: float
    true_entropy_nats: float
    entropy_nats: Mapping[float, float]
    num_pictures: int

    @property
    def line(self) -> str:
        """The measurement in words."""
        tried = ", ".join(f"{value:.2f} with top-p {top_p:g}" for top_p, value in self.entropy_nats.items())
        return (
            f"entropy of the codes of {self.num_pictures} pictures in nats: true {self.true_entropy_nats:.2f}, "
            f"drawn {tried}"
        )


def measured_top_p(model: PretrainedModel, pairs: Sequence[tuple[Pieces, Codes]]) -> MeasuredTopP:
    """Draw a picture for each text by several top-p, at the model's guidance, and choose.

    The least top-p is chosen at which the entropy of the codes drawn is at least 0.9 of that of the true ones; those
    above it are not tried. It takes the time of drawing the pictures up to four times.

    Args:
        model: whose transformer draws, as it is.
        pairs: pieces and codes of pictures, held out if there are such; 16 are enough.
    """
    true = entropy(np.concatenate([codes.ravel() for _, codes in pairs]))
    runner = Runner.of(model.latest, dtype=model.prepared_dtype)
    measured: dict[float, float] = {}
    for top_p in TOP_PS:
        config = SamplingConfig(guidance=model.guidance, top_p=top_p)
        requests = [
            picture_request(runner, model.template, pieces, seed, config)
            for seed, (pieces, _) in enumerate(pairs)
        ]
        measured[top_p] = entropy(draw(runner, requests).numpy())
        if measured[top_p] >= MIN_VARIETY * true:
            break
    return MeasuredTopP(top_p=top_p, true_entropy_nats=true, entropy_nats=measured, num_pictures=len(pairs))


def entropy(codes: Integer[np.ndarray, "..."]) -> float:
    """Return the entropy of codes in nats, wherever they stand."""
    counts = np.unique(codes, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
