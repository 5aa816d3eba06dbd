"""Stage 1 through the loop: it learns, and a resumed run is the uninterrupted one."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cogview.errors import CogViewError
from cogview.evaluation.reconstruction import evaluate_reconstruction
from cogview.image.config import VQVAEConfig
from cogview.image.tokenizer import load_image_tokenizer
from cogview.training.config import TrainingConfig
from cogview.training.image_tokenizer import ImageTokenizerTask
from cogview.training.loop import train
from cogview.training.metrics import read_metrics

TINY = VQVAEConfig(
    num_codes=16,
    code_size=8,
    encoder_channels=(16, 16),
    encoder_blocks=(0, 1),
    decoder_stem_channels=16,
    decoder_stem_blocks=1,
    decoder_channels=(16, 16),
    decoder_blocks=(0, 0),
    codebook_start_step=3,
    revival_every_steps=4,
)
TRAINING = TrainingConfig(
    num_steps=12, batch_size=4, learning_rate=2e-3, checkpoint_every_steps=6, device="cpu"
)


def pictures(num: int = 24) -> np.ndarray:
    """Two colours a picture, halves of it."""
    colours = np.random.default_rng(0).integers(0, 256, (num, 2, 3), dtype=np.uint8)
    return np.repeat(np.repeat(colours, 8, axis=1)[:, :, None], 16, axis=2)


def task_of(seed: int = 0, config: VQVAEConfig = TINY, **changes) -> ImageTokenizerTask:
    return ImageTokenizerTask(config, pictures(), **{"seed": seed, "batch_size": 4} | changes)


def test_a_batch_is_a_function_of_seed_and_step():
    first, second = task_of(), task_of()
    second.batch(0)
    assert torch.equal(first.batch(5)["images"], second.batch(5)["images"])
    assert not torch.equal(first.batch(5)["images"], first.batch(6)["images"])
    assert not torch.equal(first.batch(5)["images"], task_of(seed=1).batch(5)["images"])
    batch = first.batch(0)
    assert batch["images"].shape == (4, 3, 16, 16)
    assert first.num_items(batch) == (4, "images")


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_generator_as_it_was():
    torch.manual_seed(5)
    first = task_of().module.state_dict()
    drawn = torch.rand(1)
    second = task_of().module.state_dict()
    other = task_of(seed=1).module.state_dict()
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.0.weight"], other["encoder.0.weight"])


def test_the_codebook_learns_from_all_micro_batches():
    whole, parts = task_of(), task_of()
    images = whole.batch(0)["images"]
    whole.loss({"images": images})
    for part in images.split(1):
        parts.loss({"images": part})
    for task in (whole, parts):
        torch.manual_seed(0)
        task.after_step(3)
    torch.testing.assert_close(whole.module.quantizer.embed, parts.module.quantizer.embed)


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.slow
def test_what_is_logged_does_not_depend_on_the_number_of_micro_batches(tmp_path):
    random = np.random.default_rng(0)  # pictures that are reconstructed differently well
    noise = [random.normal(128, 4 + 12 * number, (16, 16, 3)).clip(0, 255) for number in range(4)]
    lines = []
    for num_parts in (1, 4):
        task = task_of(config=dataclasses.replace(TINY, codebook_start_step=0))
        task.images = np.stack(noise).astype(np.uint8)
        training = dataclasses.replace(TRAINING, num_steps=4, num_micro_batches=num_parts, log_every_steps=2)
        train(task, training, tmp_path / str(num_parts))
        lines.append(read_metrics(tmp_path / str(num_parts) / "metrics.jsonl"))
    for one, four in zip(*lines, strict=True):
        names = {"loss", "l1", "l2", "psnr", "commitment", "usage", "perplexity", "gradient_norm"}
        assert {name: one[name] for name in names} == pytest.approx(
            {name: four[name] for name in names}, rel=1e-4
        )


@pytest.mark.slow
def test_training_draws_unseen_pictures_of_the_same_kind(tmp_path):
    task = task_of(batch_size=8)
    unseen = np.ascontiguousarray(pictures(32)[24:])
    before = evaluate_reconstruction(task.tokenizer(), [unseen])["psnr_db"]
    training = dataclasses.replace(TRAINING, num_steps=120, learning_rate=1e-2, checkpoint_every_steps=1000)
    summary = train(
        task, training, tmp_path / "run", export=lambda folder: task.tokenizer().save_pretrained(folder)
    )
    tokenizer = load_image_tokenizer(tmp_path / "run" / "model")
    after = evaluate_reconstruction(tokenizer, [unseen])
    assert after["psnr_db"] > before + 5.0
    assert after["codes_used"] >= 4
    assert 1.0 <= after["perplexity"] <= 16.0
    assert {"l1", "l2", "psnr", "commitment", "usage", "perplexity"} <= set(summary.metrics)


@pytest.mark.parametrize("num_micro_batches", [1, 2])
@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, num_micro_batches):
    training = dataclasses.replace(TRAINING, num_micro_batches=num_micro_batches)
    whole = task_of()
    train(whole, training, tmp_path / "whole")

    class Killed(Exception):
        pass

    class Dying(ImageTokenizerTask):
        def after_step(self, step):
            if step == 8:  # past the checkpoint of step 6 and the codebook's first revivals
                raise Killed
            return super().after_step(step)

    with pytest.raises(Killed):
        train(Dying(TINY, pictures(), seed=0, batch_size=4), training, tmp_path / "killed")
    resumed = task_of()
    train(resumed, training, tmp_path / "killed", resume=True)
    state = resumed.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.module.state_dict().items())


@pytest.mark.parametrize("bad_step", [1, 4], ids=["before the codebook is laid out", "before a revival"])
@pytest.mark.slow
def test_a_failed_run_is_ended_by_the_message_that_helps(tmp_path, bad_step):
    class Failing(ImageTokenizerTask):
        def batch(self, step):
            return {**super().batch(step), "step": torch.full((4,), step)}

        def loss(self, batch):
            if batch["step"][0] == bad_step:
                self.module.encoder[0].bias.data.fill_(torch.nan)
            return super().loss(batch)

    # With this decay codes fall out of use at once, so that there are some to revive.
    config = dataclasses.replace(TINY, decay=0.1)
    training = dataclasses.replace(TRAINING, log_every_steps=12, checkpoint_every_steps=12)
    with pytest.raises(CogViewError, match=f"NaN in step {bad_step + 1}; .*learning_rate"):
        train(Failing(config, pictures(), seed=0, batch_size=4), training, tmp_path / "run")


@pytest.mark.slow
def test_the_exported_model_is_the_trained_one(tmp_path):
    task = task_of()
    train(task, TRAINING, tmp_path / "run", export=lambda folder: task.tokenizer().save_pretrained(folder))
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    state = task.module.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in weights.items())


def test_a_copy_of_the_tokenizer_does_not_stop_the_training():
    task = task_of()
    task.module.train()
    copy = task.tokenizer()
    assert task.module.training
    assert not copy.autoencoder.training
    task.module.encoder[0].bias.data.add_(1.0)
    assert not torch.equal(copy.autoencoder.encoder[0].bias, task.module.encoder[0].bias)


def test_a_codebook_that_goes_wrong_is_told_once_and_a_good_one_never():
    task = task_of(config=dataclasses.replace(TINY, num_codes=1000, codebook_start_step=50))
    good, collapsed = {"usage": 0.99, "perplexity": 60.0}, {"usage": 0.9, "perplexity": 2.0}
    disused = {"usage": 0.3, "perplexity": 60.0}
    assert task.advice(240, collapsed) == [], "it may still settle"
    assert task.advice(250, good) == []
    (words,) = task.advice(260, disused)
    assert "only 30% of 1,000 codes are used" in words
    assert task.advice(270, disused) == []
    (words,) = task.advice(280, collapsed)
    assert "collapsed" in words
    assert "2 of 1,000 codes" in words
    assert task.advice(290, collapsed) == []


@pytest.mark.slow
def test_a_run_says_what_is_wrong_with_its_codebook(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cogview.training.image_tokenizer.STEPS_TO_SETTLE", 4)
    config = dataclasses.replace(TINY, num_codes=512, decay=0.3, revival_every_steps=0)
    task = task_of(config=config)
    train(task, dataclasses.replace(TRAINING, log_every_steps=2, learning_rate=0.0001), tmp_path / "run")
    assert capsys.readouterr().err.count("of 512 codes") == 1
