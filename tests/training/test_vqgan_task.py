"""A VQGAN and its discriminator in the loop: each learns from the other, and a resumed run is the whole one."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cogview.image.config import VQGANConfig
from cogview.image.tokenizer import load_image_tokenizer
from cogview.training.config import TrainingConfig
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.vqgan import VQGANTask

TINY = VQGANConfig(
    num_codes=16,
    code_size=8,
    channels=32,
    channel_factors=(1, 1),
    num_blocks=1,
    attention_grids=(),
    inner_size=8,
    discriminator_start_step=4,
    discriminator_channels=8,
    discriminator_layers=1,
    revival_every_steps=3,
)
TRAINING = TrainingConfig(
    num_steps=8,
    batch_size=4,
    learning_rate=1e-3,
    checkpoint_every_steps=6,
    log_every_steps=1,
    device="cpu",
)


def pictures(num: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 16, 16, 3), dtype=np.uint8)


def mean_difference(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.mean((2, 3)) - second.mean((2, 3))).square().sum(1)


def task_of(**changes) -> VQGANTask:
    config = dataclasses.replace(TINY, **changes)
    return VQGANTask(config, pictures(), seed=0, batch_size=4, perception=mean_difference)


def started(**changes) -> VQGANTask:
    """Return a task whose codebook has been laid into a first step's vectors."""
    task = task_of(**changes)
    task.loss(task.batch(0))
    task.after_step(0)
    return task


def gradients(task: VQGANTask, step: int) -> dict[str, float]:
    task.module.zero_grad()
    torch.manual_seed(0)
    task.loss(task.batch(step))[0].backward()
    return {
        name: sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None)
        for name, part in task.module.items()
    }


def test_nobody_listens_to_the_discriminator_before_it_starts():
    task = started()
    before, after = gradients(task, 3), gradients(task, 4)
    assert before["discriminator"] == 0
    assert before["vqgan"] > 0
    assert after["discriminator"] > 0
    _, early = task.loss(task.batch(3))
    _, late = task.loss(task.batch(4))
    assert "adversarial" not in early
    assert {"adversarial", "adaptive_weight", "discriminator_hinge"} <= late.keys()


def test_each_side_learns_from_its_own_loss_alone():
    task = started(discriminator_start_step=0)
    batch = task.batch(1)
    images = batch["images"].float() / 127.5 - 1.0
    task.module.zero_grad()
    task.loss(batch)[0].backward()
    found = [p.grad.clone() for p in task.discriminator.parameters()]
    with torch.no_grad():
        decoded = task.vqgan(images).reconstruction
    on_real, on_decoded = task.discriminator(images), task.discriminator(decoded)
    hinge = (torch.relu(1 - on_real).mean() + torch.relu(1 + on_decoded).mean()) / 2
    expected = torch.autograd.grad(hinge, list(task.discriminator.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_vqgan_feels_pixels_perception_and_the_adversary():
    task = started(discriminator_start_step=0)
    batch = task.batch(1)
    images = batch["images"].float() / 127.5 - 1.0
    task.module.zero_grad()
    _, metrics = task.loss(batch)
    task.module.zero_grad()
    task.loss(batch)[0].backward()
    found = task.vqgan.last_layer.grad.clone()
    output = task.vqgan(images)
    weight = metrics["adaptive_weight"].total / metrics["adaptive_weight"].weight
    loss = output.loss + mean_difference(output.reconstruction, images).mean()
    loss = loss - weight * task.discriminator(output.reconstruction).mean()
    (expected,) = torch.autograd.grad(loss, task.vqgan.last_layer)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stop", [3, 6])
@pytest.mark.slow
def test_a_resumed_run_is_the_whole_one_discriminator_and_all(tmp_path, stop):
    def weights(folder):
        checkpoint = max((folder / "checkpoints").glob("step-*"))
        return {
            f"{path.name}/{name}": value
            for path in checkpoint.glob("*.safetensors")
            for name, value in load_file(path).items()
        }

    config = dataclasses.replace(TRAINING, checkpoint_every_steps=stop)
    export = lambda task: lambda folder: task.tokenizer().save_pretrained(folder)  # noqa: E731
    whole = task_of()
    train(whole, config, tmp_path / "whole", export=export(whole))

    class Killed(Exception):
        pass

    first = task_of()
    original = first.batch

    def batch(step: int):
        if step > stop:
            raise Killed
        return original(step)

    first.batch = batch
    with pytest.raises(Killed):
        train(first, config, tmp_path / "parts", export=export(first))
    second = task_of()
    train(second, config, tmp_path / "parts", resume=True, export=export(second))
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert any("discriminator" in name for name in found)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert load_image_tokenizer(tmp_path / "parts").num_codes == 16
    names = set().union(*read_metrics(tmp_path / "whole" / "metrics.jsonl"))
    assert {"perceptual", "adversarial", "psnr", "perplexity"} <= names
