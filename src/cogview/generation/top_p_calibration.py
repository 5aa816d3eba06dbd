"""Calibration of a model's top-p on pictures whose codes are known.

A model trained for a short time is unsure of every code. A low top-p then leaves only the commonest codes, on cut-outs
the white ground, and all pictures are white squares. A model that has learnt more gains from a low top-p. So the lowest
top-p is chosen that keeps the codes nearly as varied as in true pictures.
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
"""Candidates in the order of trial; the last cuts nothing off."""
MIN_VARIETY = 0.9


@dataclass(frozen=True, kw_only=True)
class TopPCalibration:
    """Chosen top-p, and the measurements behind it.

    Args:
        top_p: the lowest that leaves enough variety.
        true_entropy_nats: of all codes of the true pictures together.
        entropy_nats: of all codes drawn for the same texts, by top-p.
        num_pictures: of either kind.
    """

    top_p: float
    true_entropy_nats: float
    entropy_nats: Mapping[float, float]
    num_pictures: int

    @property
    def line(self) -> str:
        """The measurements in one line."""
        entropies = ", ".join(
            f"{value:.2f} with top-p {top_p:g}" for top_p, value in self.entropy_nats.items()
        )
        return (
            f"entropy of the codes of {self.num_pictures} pictures in nats: true {self.true_entropy_nats:.2f}, "
            f"drawn {entropies}"
        )


def calibrate_top_p(model: PretrainedModel, pairs: Sequence[tuple[Pieces, Codes]]) -> TopPCalibration:
    """Draw a picture for each text with rising top-p, until the codes are varied enough.

    The lowest top-p is chosen whose codes have at least 0.9 of the entropy of the true ones. At most, the pictures are
    drawn four times.

    Args:
        model: to draw with, at its guidance.
        pairs: pieces and codes of pictures, held out if possible; 16 are enough.
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
    return TopPCalibration(
        top_p=top_p, true_entropy_nats=true, entropy_nats=measured, num_pictures=len(pairs)
    )


def entropy(codes: Integer[np.ndarray, "..."]) -> float:
    """Return the entropy of codes in nats, regardless of their position."""
    counts = np.unique(codes, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
