"""float32 is float32 on GPUs too: convolutions are not rounded to TF32 where float32 was asked for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.backends import cudnn

from cogview.image.exact_convolutions import exact_convolutions
from cogview.training.config import TrainingConfig
from cogview.training.loop import train
from cogview.training.task import Batch, Metrics, Scalars
from tiny import tiny_image_tokenizer


@pytest.fixture
def rounding() -> Iterator[None]:
    """PyTorch's own setting, whatever was done to it."""
    assert cudnn.conv.fp32_precision == "tf32"
    yield
    assert cudnn.conv.fp32_precision == "tf32"


@pytest.mark.usefixtures("rounding")
def test_an_error_within_the_block_puts_it_back() -> None:
    def fail() -> None:
        with exact_convolutions():
            assert cudnn.conv.fp32_precision == "ieee"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize(("dtype", "seen"), [(torch.float32, "ieee"), (torch.bfloat16, "tf32")])
def test_a_tokenizer_computes_in_its_precision(dtype: torch.dtype, seen: str) -> None:
    tokenizer = tiny_image_tokenizer()
    tokenizer.dtype = dtype
    found = []
    for module in tokenizer.autoencoder.modules():
        module.register_forward_hook(lambda *_: found.append(cudnn.conv.fp32_precision))
    codes = tokenizer.encode(torch.zeros(1, 3, 16, 16))
    num_encoded = len(found)
    tokenizer.decode(codes)
    assert 0 < num_encoded < len(found)
    assert set(found) == {seen}


@pytest.mark.usefixtures("rounding")
def test_blocks_of_several_threads_end_in_any_order() -> None:
    first, second = exact_convolutions(), exact_convolutions()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cudnn.conv.fp32_precision == "ieee"
    second.__exit__(None, None, None)


class Convolving:
    """A task that notes by which setting its loss is computed."""

    channels_last = False

    def __init__(self) -> None:
        self.module = torch.nn.Conv2d(1, 1, 1)
        self.found: list[str] = []

    def batch(self, step: int) -> Batch:
        return {"images": torch.ones(1, 1, 2, 2)}

    def num_items(self, batch: Batch) -> tuple[int, str]:
        return 1, "images"

    def work(self, batch: Batch) -> dict[str, float]:
        return {}

    def loss(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        self.found.append(cudnn.conv.fp32_precision)
        return self.module(batch["images"]).float().mean(), {}

    def telemetry(self, batch: Batch) -> Scalars:
        return {}

    def advice(self, completed_steps, metrics):
        return []

    def after_step(self, step: int) -> Scalars:
        return {}


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize(("precision", "seen"), [("float32", "ieee"), ("bfloat16", "tf32")])
@pytest.mark.slow
def test_a_run_computes_in_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, seen: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    task = Convolving()
    train(task, TrainingConfig(num_steps=1, batch_size=1, precision=precision, device="cpu"), tmp_path)
    assert task.found == [seen]
