"""A decoder in the loop: it learns, the image tokenizer stays, and a resumed run is the whole one."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cogview.errors import UsageError
from cogview.image.decoder_config import DecoderConfig
from cogview.image.fingerprint import fingerprint_of
from cogview.image.pixels import as_float
from cogview.training.config import TrainingConfig
from cogview.training.decoder import DecoderTask, edge_error, mean_psnr
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from tiny import tiny_image_tokenizer

TINY = DecoderConfig(
    scales=(1, 2),
    channels=(8, 8),
    num_blocks=(1, 1),
    perceptual_weight=0.5,
    discriminator_start_step=4,
    discriminator_channels=8,
    discriminator_layers=1,
    judged_pixels=12,
)
TRAINING = TrainingConfig(
    num_steps=8,
    batch_size=4,
    learning_rate=1e-2,
    checkpoint_every_steps=6,
    log_every_steps=1,
    device="cpu",
)


def pictures(num: int = 12) -> dict[int, np.ndarray]:
    """Return noise of 32 pixels, and the same at half the size."""
    large = np.random.default_rng(0).integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)
    return {1: large[:, ::2, ::2], 2: large}


def mean_difference(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.mean((2, 3)) - second.mean((2, 3))).square().sum(1)


def task_of(**changes) -> DecoderTask:
    config = dataclasses.replace(TINY, **changes)
    return DecoderTask(
        config, tiny_image_tokenizer(), pictures(), seed=0, batch_size=4, perception=mean_difference
    )


def test_the_loss_is_what_the_config_says():
    task = task_of(l2_weight=7.0, l1_weight=2.0, edge_weight=3.0, perceptual_weight=5.0)
    for weight in task.decoder.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(1))
    batch = task.batch(1)  # of scale 2
    loss, metrics = task.loss(batch)
    real = as_float(batch["wanted"])
    codes = task.tokenizer.encode(as_float(batch["encoded"]))
    drawn = task.decoder(*task.tokenizer.first_drawing(codes))[2]
    edges = 0.0
    for axis in (2, 3):
        edges += (drawn.diff(dim=axis) - real.diff(dim=axis)).abs().mean()
    perceived = 0.0
    for number, (row, column) in enumerate(batch["corners"].tolist()):
        window = (slice(number, number + 1), slice(None), slice(row, row + 12), slice(column, column + 12))
        perceived += mean_difference(drawn[window], real[window]).sum() / 4
    error = drawn - real
    expected = 7 * error.square().mean() + 2 * error.abs().mean() + 3 * edges + 5 * perceived
    torch.testing.assert_close(loss, expected)
    mean = metrics["psnr_x2"]
    torch.testing.assert_close(mean.total / mean.weight, mean_psnr(drawn, real))


def test_scales_are_drawn_in_turn_and_windows_lie_inside():
    task = task_of()
    sides = [task.batch(step)["wanted"].shape[-1] for step in range(4)]
    assert sides == [16, 32, 16, 32]
    for step in range(4):
        corners = task.batch(step)["corners"]
        assert corners.min() >= 0
        assert corners.max() <= sides[step] - 12
    again, other = task.batch(3), task.batch(5)
    assert torch.equal(task.batch(3)["corners"], again["corners"])
    assert not torch.equal(again["corners"], other["corners"])


def test_pictures_smaller_than_the_window_are_judged_whole():
    batch = task_of(judged_pixels=64).batch(0)
    assert batch["corners"].eq(0).all()


def test_losses_of_micro_batches_add_up_to_that_of_the_batch():
    task = task_of()
    batch = task.batch(0)
    whole = task.loss(batch)[0]
    parts = [
        task.loss({name: each[start : start + 2] for name, each in batch.items()})[0] for start in (0, 2)
    ]
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_the_discriminator_learns_and_the_decoder_hears_it_from_its_step_on():
    task = task_of()
    before, after = task.batch(3), task.batch(4)
    task.loss(before)[0].backward()
    assert all(each.grad is None for each in task.adversary.discriminator.parameters())
    loss, metrics = task.loss(after)
    loss.backward()
    assert all(each.grad is not None for each in task.adversary.discriminator.parameters())
    assert {"adversarial", "verdict_on_real", "verdict_on_decoded"} <= set(metrics)
    late = task_of(perceptual_start_step=2)
    assert ["perceptual" in late.loss(late.batch(step))[1] for step in (1, 2)] == [False, True]
    deaf = task_of(discriminator_weight=0.0)
    assert "adversarial" not in deaf.loss(deaf.batch(4))[1]


@pytest.mark.slow
def test_the_image_tokenizer_stays_and_the_loss_falls(tmp_path):
    task = task_of(discriminator_weight=0.0)
    fingerprint = fingerprint_of(task.tokenizer.autoencoder)
    train(task, dataclasses.replace(TRAINING, num_steps=40), tmp_path / "run")
    assert fingerprint_of(task.tokenizer.autoencoder) == fingerprint
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    twice = [line["psnr_x2"] for line in lines if "psnr_x2" in line]
    assert twice[-1] > twice[0]
    assert not any("autoencoder" in name for name, _ in task.module.named_parameters())


@pytest.mark.slow
def test_a_resumed_run_is_the_whole_one(tmp_path):
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        checkpoint = max((folder / "checkpoints").glob("step-*"))
        return {
            f"{path.name}/{name}": value
            for path in checkpoint.glob("*.safetensors")
            for name, value in load_file(path).items()
        }

    train(task_of(), TRAINING, tmp_path / "whole")
    train(task_of(), TRAINING, tmp_path / "part")
    shutil.rmtree(
        max((tmp_path / "part" / "checkpoints").glob("step-*"))
    )  # as if it had been killed after step 6
    train(task_of(), TRAINING, tmp_path / "part", resume=True)
    first, second = (weights(tmp_path / run) for run in ("whole", "part"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pictures_that_do_not_fit_are_refused():
    tokenizer, given = tiny_image_tokenizer(), pictures()
    for images in ({2: given[2]}, {1: given[1]}, {1: given[1][:3], 2: given[2]}):
        with pytest.raises(UsageError, match="the same pictures are needed"):
            DecoderTask(TINY, tokenizer, images, seed=0, batch_size=4)


def test_equal_pictures_have_no_error():
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    assert edge_error(images, images) == 0
    assert edge_error(images + 0.5, images) < 1e-6  # a shift of all has no edges
    assert mean_psnr(images, images) == 100
    torch.testing.assert_close(
        mean_psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)), torch.tensor(20.0)
    )
