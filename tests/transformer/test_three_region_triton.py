"""The Triton kernels of three-region attention, interpreted on a CPU, compute what the plain form does."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cogview.transformer import three_region_kernels
from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.three_region_kernels import fits_triton_kernels, has_triton_kernels

needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is for Linux")
CONFIG = ThreeRegionConfig(
    block_tokens=16,
    key_window_blocks=2,
    num_text_and_pivot_tokens=24,
    image_start_token=1,
    num_image_tokens=100,
)


def lines_of(what: str, tmp_path: Path, **environment: str) -> list[str]:
    """Return what the program prints; only a fresh process interprets all that Triton is made of."""
    program = [sys.executable, str(Path(__file__).parents[1] / "triton_program.py"), what]
    variables = os.environ | environment | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    return done.stdout.split()


@needs_triton
@pytest.mark.slow
def test_outputs_and_gradients_are_those_of_the_plain_form(tmp_path: Path) -> None:
    differences = lines_of("interpreted", tmp_path, TRITON_INTERPRET="1")
    assert len(differences) == 3
    assert all(float(each) < 1e-5 for each in differences)


@needs_triton
@pytest.mark.slow
def test_all_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    """What the interpreter takes, the compiler may not."""
    kernels = ["_forward_kernel", "_query_kernel", "_slot_kernel", "_place_kernel"]
    assert lines_of("compiled", tmp_path) == kernels


def test_what_does_not_fit_is_left_to_other_kernels() -> None:
    assert fits_triton_kernels(CONFIG, 64, 0.0)
    assert not fits_triton_kernels(CONFIG, 48, 0.0)
    assert not fits_triton_kernels(CONFIG, 256, 0.0)
    assert not fits_triton_kernels(CONFIG, 64, 0.1)
    assert not fits_triton_kernels(dataclasses.replace(CONFIG, block_tokens=8), 64, 0.0)


@pytest.mark.parametrize(("num_bytes", "expected"), [(232_448, True), (101_376, False), (None, False)])
def test_a_gpu_with_little_shared_memory_takes_other_kernels(
    monkeypatch: pytest.MonkeyPatch, num_bytes: int | None, expected: bool
) -> None:
    properties = type(
        "Properties", (), {} if num_bytes is None else {"shared_memory_per_block_optin": num_bytes}
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(three_region_kernels.importlib.util, "find_spec", lambda _: object())
    has_triton_kernels.cache_clear()
    assert has_triton_kernels(torch.device("cuda")) == expected
    has_triton_kernels.cache_clear()
