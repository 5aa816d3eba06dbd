"""Products with weights of 8 bits are what their numbers say, to the bit, in any company and by any kernel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from cogview.decoding import linear_int8
from cogview.decoding.linear_int8 import has_int8_kernel, int8_product, plain_sums
from cogview.transformer.quantized import QuantizedRows

SHAPES = [(96, 288), (384, 96), (2048, 64)]


def weight_and_bias(num_inputs: int, num_outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_inputs)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) * num_inputs**-0.5
    return weight, torch.randn(num_outputs, generator=generator)


def rows(num_rows: int, num_inputs: int) -> torch.Tensor:
    return torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(1))


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 40), st.floats(-30, 30))
def test_rounding_is_to_the_nearest_and_rounding_again_changes_nothing(
    seed: int, num_rows: int, num_columns: int, exponent: float
) -> None:
    weight = torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    quantized = QuantizedRows.of(weight)
    floats = quantized.floats()
    # Half a step, and what rounding the quotient adds.
    assert ((floats - weight).abs() <= 0.5001 * quantized.scales[:, None]).all()
    assert (quantized.values.abs().amax(dim=1) == 127).all()
    again = QuantizedRows.of(floats)
    assert torch.equal(again.values, quantized.values)
    assert torch.equal(again.scales, quantized.scales)


def test_rows_of_zeros_and_of_no_numbers_stay_what_they_are() -> None:
    assert torch.equal(QuantizedRows.of(torch.zeros(2, 5)).floats(), torch.zeros(2, 5))
    broken = torch.ones(2, 5)
    broken[0, 0] = torch.nan
    product = int8_product(QuantizedRows.of(broken))
    assert not torch.isfinite(product(torch.ones(1, 5))[0, 0])
    assert not torch.isfinite(int8_product(QuantizedRows.of(torch.ones(3, 5)))(broken)[0]).any()


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("num_inputs", "num_outputs"), SHAPES)
def test_a_product_is_that_of_what_the_numbers_stand_for(
    num_inputs: int, num_outputs: int, gelu: bool
) -> None:
    weight, bias = weight_and_bias(num_inputs, num_outputs)
    quantized, x = QuantizedRows.of(weight), rows(140, num_inputs)
    found = int8_product(quantized, bias)(x, gelu)
    steps = (x.abs().amax(dim=1, keepdim=True) / 127).double()
    rounded = (x / steps.float()).round().double() * steps
    exact = F.linear(rounded, quantized.floats().double(), bias.double())
    exact = F.gelu(exact, approximate="tanh") if gelu else exact
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)
    # And near the one that nothing was rounded in: steps are a hundredth of what is usual in a row.
    unrounded = F.linear(x, weight, bias)
    unrounded = F.gelu(unrounded, approximate="tanh") if gelu else unrounded
    assert (found - unrounded).std() < 0.02 * unrounded.std()


@pytest.mark.parametrize(("num_inputs", "num_outputs"), SHAPES)
def test_a_row_has_the_same_bits_in_any_company(num_inputs: int, num_outputs: int) -> None:
    weight, bias = weight_and_bias(num_inputs, num_outputs)
    product = int8_product(QuantizedRows.of(weight), bias)
    x = rows(200, num_inputs)
    for gelu in (False, True):
        together = product(x, gelu)
        for first, stop in ((0, 1), (0, 2), (7, 20), (100, 163), (199, 200)):
            assert torch.equal(product(x[first:stop], gelu), together[first:stop])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 2300), st.integers(1, 9))
def test_the_plain_kernel_sums_exactly(seed: int, num_rows: int, num_inputs: int, num_outputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, weight = (
        torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
        for shape in ((num_rows, num_inputs), (num_inputs, num_outputs))
    )
    x[0], weight[:, 0] = 127, 127  # the largest sum that there can be
    assert torch.equal(plain_sums(x, weight).long(), x.long() @ weight.long())


def test_every_kernel_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_int8_kernel():
        pytest.skip("bytes are not multiplied here")
    weight, bias = weight_and_bias(384, 96)
    x = rows(33, 384)
    fast = int8_product(QuantizedRows.of(weight), bias)(x)
    monkeypatch.setattr(linear_int8, "has_int8_kernel", lambda: False)
    assert torch.equal(int8_product(QuantizedRows.of(weight), bias)(x), fast)
