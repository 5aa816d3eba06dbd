"""Stage 2 as a task: which targets count, how much, and over which ids the softmax runs."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cogview.data.loader import TokenBatches
from cogview.errors import UsageError
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.transformer import TransformerTask, evaluate_losses
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

TEMPLATE = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=12, num_text_pieces=20),
    grid_rows=2,
    grid_columns=3,
    max_text_pieces=5,
)


class FixedBatches(TokenBatches):
    """Three texts of different lengths, each with a picture."""

    def __init__(self) -> None:
        self.template = TEMPLATE

    def batch(self, step: int) -> TokenBatch:
        return TEMPLATE.batch(pairs(step))


def pairs(step: int) -> list[tuple[list[int], np.ndarray]]:
    random = np.random.default_rng(step)
    return [(random.integers(0, 20, num).tolist(), random.integers(0, 12, (2, 3))) for num in (1, 5, 3)]


def task(**loss) -> TransformerTask:
    config = TransformerConfig(
        num_layers=2,
        hidden_size=32,
        num_heads=2,
        vocabulary_size=TEMPLATE.vocabulary.size,
        num_positions=TEMPLATE.num_positions,
    )
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():  # far from uniform, so that a wrong row or place changes the loss
        model.embedding.tokens.weight.mul_(30)
    return TransformerTask(model, FixedBatches(), TokenLossConfig(**loss))


def plain_losses(task: TransformerTask, step: int, legal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of image and of text targets by the definition: one softmax a target, one target at a time."""
    batch = FixedBatches().batch(step)
    logits = task.module(torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions))
    vocabulary = TEMPLATE.vocabulary
    losses = {"image": [], "text": []}
    for row, column in np.ndindex(batch.tokens.shape):
        is_image, is_text = batch.image_mask[row, column], batch.text_mask[row, column]
        if is_image or is_text:
            start = vocabulary.text_pieces.start if is_text and legal else 0
            stop = vocabulary.num_image_codes if is_image and legal else vocabulary.num_tokens
            stop = vocabulary.size if not legal else stop
            target = torch.tensor(batch.targets[row, column] - start)
            losses["image" if is_image else "text"].append(
                F.cross_entropy(logits[row, column, start:stop], target)
            )
    return torch.stack(losses["image"]), torch.stack(losses["text"])


@pytest.mark.parametrize("normaliser", ["legal", "vocabulary"])
@pytest.mark.parametrize("text_weight", [0.0, 1.0, 2.5])
def test_loss_is_the_weighted_mean_over_all_targets(normaliser, text_weight):
    subject = task(normaliser=normaliser, text_weight=text_weight)
    loss, metrics = subject.loss(subject.batch(4))
    image, text = plain_losses(subject, 4, normaliser == "legal")
    assert len(image) == 3 * 6
    assert len(text) == (1 + 5 + 3) + 3  # each text's pieces and the separator that ends it
    expected = (image.sum() + text_weight * text.sum()) / (len(image) + text_weight * len(text))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, nats in (("image_loss_nats", image), ("text_loss_nats", text)):
        assert metrics[name].total.item() == pytest.approx(nats.sum().item(), rel=1e-5)
        assert metrics[name].weight == len(nats)


def test_rows_without_a_target_that_counts_have_no_loss_and_a_gradient_of_zeros():
    subject = task(text_weight=0.0)
    batch = {name: tensor[:, :0] if "image_" in name else tensor for name, tensor in subject.batch(0).items()}
    loss, metrics = subject.loss(batch)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in subject.module.parameters() if p.grad is not None)
    assert metrics["text_loss_nats"].weight == 12


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_evaluation_takes_the_mean_over_all_targets_whatever_the_batches(batch_size):
    subject = task(normaliser="vocabulary", text_weight=0.0)  # what it was trained with is of no concern
    image, text = plain_losses(subject, 7, legal=True)
    measured = evaluate_losses(subject.module, TEMPLATE, pairs(7), batch_size)
    assert measured.keys() == {"loss", "text_loss_nats", "image_loss_nats"}
    assert measured["loss"] == pytest.approx(torch.cat([image, text]).mean().item(), rel=1e-5)
    assert measured["image_loss_nats"] == pytest.approx(image.mean().item(), rel=1e-5)
    assert measured["text_loss_nats"] == pytest.approx(text.mean().item(), rel=1e-5)


def test_items_are_the_weight_of_the_targets():
    assert task().num_items(task().batch(0)) == (18 + 12, "tokens")
    assert task(text_weight=0.0).num_items(task().batch(0)) == (18, "tokens")
    assert task(text_weight=0.1).num_items(task().batch(0)) == (pytest.approx(18 + 1.2), "tokens")


@pytest.mark.parametrize("text_weight", [0.0, 0.1, 1.0])
def test_gradients_of_parts_by_their_weights_are_those_of_the_whole(text_weight):
    whole, parts = task(text_weight=text_weight), task(text_weight=text_weight)
    batch = whole.batch(0)
    whole.loss(batch)[0].backward()
    total, _ = parts.num_items(batch)
    for row in range(3):
        part = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        (parts.loss(part)[0] * parts.num_items(part)[0] / total).backward()
    for one, other in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.slow
def test_what_is_logged_does_not_depend_on_the_number_of_micro_batches(tmp_path):
    lines = []
    for num_parts in (1, 3):
        config = TrainingConfig(
            num_steps=2, batch_size=3, num_micro_batches=num_parts, log_every_steps=2, device="cpu"
        )
        subject = task(text_weight=0.5, z_loss_weight=1e-3)
        train(subject, config, tmp_path / str(num_parts))
        lines += read_metrics(tmp_path / str(num_parts) / "metrics.jsonl")
    one, three = lines
    for name in ("loss", "text_loss_nats", "image_loss_nats", "squared_log_normaliser", "gradient_norm"):
        assert one[name] == pytest.approx(three[name], rel=1e-5)
    num_text = 0.5 * 12  # of a step, beside 18 codes
    nats = (18 * one["image_loss_nats"] + num_text * one["text_loss_nats"]) / (18 + num_text)
    assert one["loss"] == pytest.approx(nats + 1e-3 * one["squared_log_normaliser"], rel=1e-5)


def test_batches_of_one_shape_whatever_the_texts():
    first, second = task().batch(0), task().batch(1)
    assert {name: tensor.shape for name, tensor in first.items()} == {
        name: tensor.shape for name, tensor in second.items()
    }
    assert {len(tensor) for tensor in first.values()} == {3}


def test_rows_can_be_split_into_micro_batches():
    subject = task()
    batch = subject.batch(2)
    whole, _ = subject.loss(batch)
    total, weight = torch.zeros(()), 0
    for row in range(3):
        part = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        num_items, _ = subject.num_items(part)
        total, weight = total + subject.loss(part)[0] * num_items, weight + num_items
    assert (total / weight).item() == pytest.approx(whole.item(), rel=1e-5)


def test_without_text_loss_no_text_row_of_the_head_learns():
    subject = task(text_weight=0.0, normaliser="legal")
    subject.module.embedding.gradient_scale = 0.0  # leaves the head's gradient alone in the table
    loss, _ = subject.loss(subject.batch(0))
    loss.backward()
    gradient = subject.module.embedding.tokens.weight.grad
    codes = TEMPLATE.vocabulary.image_codes
    assert gradient[codes.start : codes.stop].abs().sum() > 0
    assert gradient[TEMPLATE.vocabulary.text_pieces.start :].abs().sum() == 0


@pytest.mark.parametrize("name", ["text_weight", "z_loss_weight"])
def test_negative_weights_are_refused(name):
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(TokenLossConfig(), **{name: -1.0})


@pytest.mark.parametrize("normaliser", ["legal", "vocabulary"])
def test_z_loss_is_added_to_the_loss_and_shown_apart(normaliser):
    plain, penalised = task(normaliser=normaliser), task(normaliser=normaliser, z_loss_weight=0.01)
    loss, metrics = plain.loss(plain.batch(0))
    with_z, more = penalised.loss(penalised.batch(0))
    assert "squared_log_normaliser" not in metrics
    square = (more["squared_log_normaliser"].total / more["squared_log_normaliser"].weight).item()
    assert square > 0
    assert with_z.item() == pytest.approx(loss.item() + 0.01 * square, rel=1e-5)
    assert more["image_loss_nats"] == metrics["image_loss_nats"]


def test_work_is_the_targets_and_what_they_ask_of_the_model():
    subject = task(normaliser="legal")
    config = subject.module.config
    work = subject.work(subject.batch(0))
    assert work["tokens"] == 18 + 12
    matrices = 2 * (4 + 8) * 32 * 32
    others = (
        sum(p.numel() for name, p in subject.module.named_parameters() if "embedding" not in name) - matrices
    )
    attention = 6 * config.num_layers * 32 * TEMPLATE.max_tokens
    head = 18 * 12 + 12 * (TEMPLATE.vocabulary.num_tokens - TEMPLATE.vocabulary.text_pieces.start)
    # In each of three sequences a separator, the last code and what ends the picture foretell nothing that is learnt.
    assert work["flops"] == pytest.approx(
        (30 + 3 * 3) * (6 * (matrices + others) + attention) + 6 * 32 * head
    )
