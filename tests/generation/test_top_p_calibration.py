"""The top-p of a model is the least that leaves its codes as various as the true ones."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cogview.generation.pipeline import Pipeline
from cogview.generation.top_p_calibration import MIN_VARIETY, TOP_PS, calibrate_top_p, entropy
from cogview.models.pretrained import PretrainedModel
from cogview.sequence.template import Codes, Pieces
from tiny import CAPTIONS, tiny_model


@pytest.fixture
def model(tmp_path: Path) -> PretrainedModel:
    return tiny_model(tmp_path)


def pairs_of(model: PretrainedModel, codes: np.ndarray) -> list[tuple[Pieces, Codes]]:
    pieces = [np.array(model.text_tokenizer.encode(text), dtype=np.int64) for text in CAPTIONS[:4]]
    return list(zip(pieces, codes.reshape(4, 16), strict=True))


def test_entropy_is_that_of_the_shares() -> None:
    assert entropy(np.array([[7, 7], [7, 7]])) == 0
    assert entropy(np.array([1, 2, 3, 4, 4, 3, 2, 1])) == pytest.approx(math.log(4))


@pytest.mark.slow
def test_what_is_measured_is_what_the_pipeline_draws(model: PretrainedModel) -> None:
    measured = calibrate_top_p(model, pairs_of(model, np.arange(64)))  # more various than any draw
    pipe = Pipeline(model)
    assert measured.true_entropy_nats == pytest.approx(math.log(64))
    assert list(measured.entropy_nats) == list(TOP_PS)
    for top_p, value in measured.entropy_nats.items():
        drawn = [pipe.generate_codes(text, 1, seed, top_p=top_p) for seed, text in enumerate(CAPTIONS[:4])]
        assert entropy(torch.stack(drawn).numpy()) == value
    assert measured.num_pictures == 4
    assert f"drawn {measured.entropy_nats[0.8]:.2f} with top-p 0.8" in measured.line


def test_the_least_that_leaves_enough_is_chosen_and_no_further_one_tried(model: PretrainedModel) -> None:
    all_alike = calibrate_top_p(model, pairs_of(model, np.zeros(64, dtype=np.int64)))
    assert all_alike.top_p == 0.8
    assert list(all_alike.entropy_nats) == [0.8]


def test_a_model_that_is_unsure_of_a_ground_draws_from_all_codes(model: PretrainedModel) -> None:
    """Each code is the ground with 0.85 and one of 31 others else: what top-p 0.8 leaves is the ground alone."""
    vocabulary = model.template.vocabulary
    share = 0.85
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.zero_()
        norm = model.transformer.final_norm
        norm.bias[0] = 1.0
        rows = model.transformer.embedding.tokens.weight
        rows[vocabulary.image_codes.start, 0] = math.log(share / ((1 - share) / 31))
    draw = np.random.Generator(np.random.PCG64(0))
    true = np.where(draw.random(64) < share, 0, draw.integers(1, 32, 64))
    measured = calibrate_top_p(model, pairs_of(model, true))
    assert measured.entropy_nats[0.8] == 0
    assert measured.top_p > share
    *too_few, _ = measured.entropy_nats.values()
    assert max(too_few) < MIN_VARIETY * measured.true_entropy_nats
