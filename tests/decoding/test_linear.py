"""Prepared linear maps compute what plain ones do, and a row has the same bits in any company."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from cogview.decoding.linear import (
    BLOCKS,
    HALVES_ROWS,
    _in_multiples,
    _packed_product,
    _plain_product,
    can_pack,
    in_blocks,
    padded_rows,
    prepare_linear,
    row_multiple,
)
from cogview.errors import UsageError

SHAPES = [(96, 288), (96, 96), (384, 96), (2048, 64)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def weight_and_bias(num_inputs: int, num_outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_inputs)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) * num_inputs**-0.5
    return weight, torch.randn(num_outputs, generator=generator)


def rows(num_rows: int, num_inputs: int) -> torch.Tensor:
    return torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(1))


def skip_unless_packable(backend: str, dtype: torch.dtype) -> None:
    if backend == "packed" and not can_pack("cpu", dtype):
        pytest.skip(f"{dtype} weights cannot be packed here")


@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("num_inputs", "num_outputs"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_prepared_agrees_with_the_exact_product(
    backend: str, gelu: bool, num_inputs: int, num_outputs: int, dtype: torch.dtype
) -> None:
    skip_unless_packable(backend, dtype)
    weight, bias = weight_and_bias(num_inputs, num_outputs)
    linear = prepare_linear(weight, bias, dtype=dtype, backend=backend)
    for num_rows in (1, 2, 5, 16):
        x = rows(num_rows, num_inputs)
        compute_dtype = torch.float32 if (backend, dtype) == ("packed", torch.float16) else dtype
        product = F.linear(x.to(compute_dtype).double(), weight.to(dtype).double(), bias.to(dtype).double())
        exact = F.gelu(product, approximate="tanh") if gelu else product
        found = linear(x, gelu)
        assert found.dtype == compute_dtype
        assert found.shape == (num_rows, num_outputs)
        # Sums are made in fp32; bf16 rounds the result to 8 places (fp16 to 11), and what goes into a GELU that isn't
        # fused, whose slope is at most 1.13.
        bound = torch.full_like(exact, 1e-4)
        if compute_dtype != torch.float32:
            places = {torch.bfloat16: 8, torch.float16: 11}[compute_dtype]
            bound += 2.0**-places * (exact.abs() + 1.13 * product.abs() * gelu)
        assert ((found.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_inputs", "num_outputs"), SHAPES)
def test_a_packed_row_has_the_same_bits_in_any_company(
    num_inputs: int, num_outputs: int, dtype: torch.dtype
) -> None:
    skip_unless_packable("packed", dtype)
    weight, bias = weight_and_bias(num_inputs, num_outputs)
    linear = prepare_linear(weight, bias, dtype=dtype, backend="packed")
    x = rows(40, num_inputs)
    together = linear(x)
    for num_rows in (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 33):
        assert torch.equal(linear(x[:num_rows]), together[:num_rows])
        assert torch.equal(linear(x[-num_rows:]), together[-num_rows:])


@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize(("num_inputs", "num_outputs"), SHAPES)
def test_rows_are_padded_to_the_smallest_multiple_that_keeps_their_bits(
    num_inputs: int, num_outputs: int, backend: str
) -> None:
    skip_unless_packable(backend, torch.float32)
    is_packed = backend == "packed"
    found = row_multiple(num_inputs, num_outputs, torch.float32, is_packed, torch.get_num_threads())
    weight, _ = weight_and_bias(num_inputs, num_outputs)
    product = (_packed_product if is_packed else _plain_product)(weight, None)
    x = rows(48, num_inputs)
    together = product(x)

    def keeps_bits(multiple: int) -> bool:
        linear = (in_blocks if is_packed else _in_multiples)(product, multiple)
        return all(torch.equal(linear(x[:size]), together[:size]) for size in range(1, 48))

    smallest = next((multiple for multiple in (1, 2, 3, 4, 6, 8) if keeps_bits(multiple)), 1)
    assert found == (2 * smallest if is_packed and smallest > 1 and HALVES_ROWS else smallest)


def test_weights_of_a_kind_that_cannot_be_packed_are_refused_or_left_plain() -> None:
    weight, _ = weight_and_bias(96, 96)
    assert not can_pack("cpu", torch.float64)
    with pytest.raises(UsageError, match="plain"):
        prepare_linear(weight.double(), backend="packed")
    linear = prepare_linear(weight.double())
    x = rows(3, 96).double()
    assert torch.allclose(linear(x), x @ weight.double().T)


def test_the_original_weight_is_left_as_it_was() -> None:
    weight, bias = weight_and_bias(96, 96)
    before = weight.clone()
    prepare_linear(weight, bias)
    assert torch.equal(weight, before)


def test_no_rows_give_no_rows() -> None:
    for backend in ("packed", "plain"):
        linear = prepare_linear(torch.randn(8, 16), torch.randn(8), backend=backend)
        assert linear(torch.empty(0, 16), gelu=True).shape == (0, 8)
        assert linear(torch.empty(0, 16)).shape == (0, 8)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_packed_kernels_meet_few_numbers_of_rows(nums: list[int]) -> None:
    num_rows = np.array(nums)
    padded = padded_rows(num_rows)
    assert (padded >= num_rows).all()
    assert (padded <= np.maximum(2 * num_rows, 8)).all()
    assert set(((padded - 1) % BLOCKS[-1] + 1).tolist()) <= set(BLOCKS)
    assert np.array_equal(padded_rows(padded), padded)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_inputs", "num_outputs"), [*SHAPES, (256, 768), (1024, 256)])
@pytest.mark.slow
def test_a_row_has_the_same_bits_in_blocks_of_all_sizes(
    num_inputs: int, num_outputs: int, dtype: torch.dtype
) -> None:
    skip_unless_packable("packed", dtype)
    weight, bias = weight_and_bias(num_inputs, num_outputs)
    linear = prepare_linear(weight, bias, dtype=dtype, backend="packed")
    x = rows(BLOCKS[-1], num_inputs)
    together = linear(x, gelu=True)
    for num_rows in BLOCKS:
        for first in (0, BLOCKS[-1] - num_rows):
            some = slice(first, first + num_rows)
            assert torch.equal(linear(x[some], gelu=True), together[some])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_rows_are_what_they_are_by_themselves(dtype: torch.dtype) -> None:
    skip_unless_packable("packed", dtype)
    weight, bias = weight_and_bias(96, 96)
    linear = prepare_linear(weight, bias, dtype=dtype, backend="packed")
    x = rows(1100, 96)
    together = linear(x)
    for first, stop in ((0, 1), (100, 129), (120, 260), (400, 1050), (1099, 1100)):
        assert torch.equal(linear(x[first:stop]), together[first:stop])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gelu_has_the_same_bits_on_any_number_of_threads(dtype: torch.dtype) -> None:
    skip_unless_packable("packed", dtype)
    weight, bias = weight_and_bias(96, 2048)
    x, before = rows(64, 96), torch.get_num_threads()
    # PyTorch 2.11 splits fp32 rows among four threads or more where oneDNN sums in another order.
    counts = (1, 2, 3) if HALVES_ROWS else (1, 2, 3, 6)
    found = []
    try:
        for num in counts:
            torch.set_num_threads(num)
            linear = prepare_linear(weight, bias, dtype=dtype, backend="packed")
            found += [linear(x, gelu=True), torch.cat([linear(x[:7], gelu=True), linear(x[7:], gelu=True)])]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)
