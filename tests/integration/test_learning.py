"""Stage 2 learns: after training, a caption draws the codes that it was shown with, and no other caption's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cogview.generation.pipeline import Pipeline
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.training.loop import train
from cogview.training.transformer import TransformerTask
from tiny import tiny_model

pytestmark = pytest.mark.slow

TEXTS = ("a red cat", "a blue cat", "一只猫", "two dogs on a blue ground")


@dataclass(frozen=True, kw_only=True)
class SameBatch:
    """The same sequences at every step."""

    template: TextToImageTemplate
    sequences: TokenBatch

    def batch(self, step: int) -> TokenBatch:
        return self.sequences


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_caption_draws_what_it_was_shown_with(tmp_path: Path, optimizer: str) -> None:
    model = tiny_model(tmp_path)
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)  # from the tests' wild weights to learnable ones
    codes = np.random.default_rng(0).integers(
        model.template.vocabulary.num_image_codes, size=(len(TEXTS), 16)
    )
    pieces = [np.asarray(model.text_tokenizer.encode(text)) for text in TEXTS]
    sequences = model.template.batch(list(zip(pieces, codes, strict=True)))
    task = TransformerTask(
        model.transformer,
        SameBatch(template=model.template, sequences=sequences),
        TokenLossConfig(normaliser="legal"),
    )
    config = TrainingConfig(
        num_steps=200, batch_size=len(TEXTS), optimizer=optimizer, learning_rate=1e-2, device="cpu"
    )
    summary = train(task, config, tmp_path / "run")
    assert summary.metrics["image_loss_nats"] < 0.1
    model.transformer.eval()
    for text, wanted in zip(TEXTS, codes, strict=True):
        drawn = Pipeline(model).generate(text, num_candidates=1, temperature=0)[0]
        assert np.array_equal(np.asarray(drawn.codes).ravel(), wanted)
