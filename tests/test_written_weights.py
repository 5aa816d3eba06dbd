"""Weights are written one after the other as the library writes them at once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from cogview.tensors import write_weights

WEIGHTS = {
    "b": torch.arange(6.0).view(2, 3),
    "a.half": torch.arange(7.0).half(),
    "a": torch.ones(3, 5, dtype=torch.float64).T,
    "c": torch.ones(3, dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0),
}


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float32])
def test_the_bytes_are_those_of_the_library(tmp_path: Path, dtype: torch.dtype | None) -> None:
    write_weights(tmp_path / "ours.safetensors", WEIGHTS, dtype)
    wanted = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in WEIGHTS.items()}
    assert (tmp_path / "ours.safetensors").read_bytes() == save(wanted, metadata={"format": "pt"})


def test_values_may_come_in_parts_from_elsewhere(tmp_path: Path) -> None:
    described = {name: tensor.to("meta") for name, tensor in WEIGHTS.items()}
    path = tmp_path / "ours.safetensors"
    write_weights(
        path, described, read=lambda name: WEIGHTS[name].split(1) if WEIGHTS[name].ndim else [WEIGHTS[name]]
    )
    found = load_file(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())
    with pytest.raises(AssertionError, match="header"):
        write_weights(
            path, described, read=lambda name: WEIGHTS[name][:1] if name == "b" else [WEIGHTS[name]]
        )
