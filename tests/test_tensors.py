"""Tensors of anybody's: known before they are read, widened or refused, and compared before a model is made."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cogview.errors import CogViewError
from cogview.tensors import MisfitError, UnreadableError, build_to_fit, read_tensors, stored_shapes

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NARROW = (torch.float8_e4m3fn, torch.float8_e5m2)
OTHERS = (
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e8m0fnu,
)


def saved(path: Path, dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.linspace(0, 3, 12).view(3, 4).to(dtype)
    save_file({"a.weight": tensor}, path)
    return tensor


@pytest.mark.parametrize("dtype", FLOATS + NARROW)
def test_floats_come_back_to_the_bit_and_narrow_ones_are_widened_exactly(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    tensor = saved(tmp_path / "a.safetensors", dtype)
    (read,) = read_tensors(tmp_path / "a.safetensors").values()
    assert read.dtype == (torch.float16 if dtype in NARROW else dtype)
    assert torch.equal(read.float(), tensor.float())
    assert torch.equal(read.to(dtype).view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("read", [read_tensors, stored_shapes])
def test_a_pipe_of_tensors_is_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UnreadableError, match="a pipe or a device"):
        read(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", NARROW)
def test_every_8_bit_float_is_a_16_bit_one(tmp_path: Path, dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(dtype)
    save_file({"a": every}, tmp_path / "a.safetensors")
    torch.testing.assert_close(
        read_tensors(tmp_path / "a.safetensors")["a"].float(), every.float(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", OTHERS)
def test_what_is_no_weight_is_refused_by_name_and_kind(tmp_path: Path, dtype: torch.dtype) -> None:
    saved(tmp_path / "a.safetensors", dtype)
    with pytest.raises(CogViewError, match=rf"a\.safetensors: a\.weight is {str(dtype)[6:]}"):
        read_tensors(tmp_path / "a.safetensors")


def test_shapes_are_known_from_the_header(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(0, 5), "c": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert stored_shapes(tmp_path / "a.safetensors") == {"a": (2, 3), "b": (0, 5), "c": ()}


@pytest.mark.parametrize(
    "data", [b"", b"{}", (2**60).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    for read in (stored_shapes, read_tensors):
        with pytest.raises(CogViewError, match="cannot be read"):
            read(tmp_path / "a.safetensors")


def test_a_module_that_fits_takes_no_memory() -> None:
    found = {"weight": (10**9, 10**6), "bias": (10**9,)}
    linear = build_to_fit(lambda: nn.Linear(10**6, 10**9), 1, found)
    assert linear.weight.is_meta


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"weight": (3, 2)}, "missing bias"),
        ({"weight": (3, 2), "bias": (3,), "more": ()}, "unexpected more"),
        ({"weight": (2, 3), "bias": (3,)}, r"weight is \[2, 3\] instead of \[3, 2\]"),
    ],
)
def test_what_does_not_fit_is_named(found: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(MisfitError, match=said):
        build_to_fit(lambda: nn.Linear(2, 3), 1, found)


def test_more_layers_than_tensors_are_refused_before_any_is_made() -> None:
    def build() -> nn.Module:
        pytest.fail("it was built")

    with pytest.raises(MisfitError, match=r"3 layers.* 2 tensors"):
        build_to_fit(build, 3, {"a": (1,), "b": (1,)})
    with pytest.raises(MisfitError, match=r"2 layers.* 3 tensors"):
        build_to_fit(build, 2, {"a": (1,), "b": (1,), "c": (1,)}, tensors_per_part=2)


def test_sizes_that_no_tensor_can_have_are_refused() -> None:
    with pytest.raises(MisfitError, match="impossible size"):
        build_to_fit(lambda: nn.Linear(2**62, 2**62), 1, {"weight": (1,)})
