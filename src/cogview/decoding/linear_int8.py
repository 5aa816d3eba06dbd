"""Products with int8 weights; each input row is quantized to int8 with a scale of its input_scales.

Sums of integer products are exact in any order, so a row has the same bits in any batch, with any number of threads and
any kernel. Processors with VNNI take about a quarter of fp32's time, and the weights a quarter of its memory.
"""

from functools import cache

import torch
from jaxtyping import Float, Int8, Int32
from torch import Tensor

from cogview.decoding.linear import DecodingLinear, gelu_of, in_blocks
from cogview.transformer.quantized import LARGEST, QuantizedRows

_EXACT_COLUMNS = 2**24 // LARGEST**2
"""Products of two such numbers whose sum fp32 holds exactly."""

_CHUNK = 2**20


def int8_product(rows: QuantizedRows, bias: Float[Tensor, "o"] | None = None) -> DecodingLinear:
    """Return the product with quantized weights; the result is fp32.

    Args:
        rows: the weight.
        bias: none if None.
    """
    values, scales = rows.values, rows.scales[None]
    bias = None if bias is None else bias.detach().float()
    sums_of = torch._int_mm if has_int8_kernel() else plain_sums

    def product(x: Tensor, gelu: bool = False) -> Tensor:
        if not len(x):
            return x.new_empty(0, len(values), dtype=torch.float32)
        x = x.float()
        input_scales = (x.abs().amax(dim=1, keepdim=True) / LARGEST).clamp_(
            min=torch.finfo(torch.float32).tiny
        )
        sums = sums_of((x / input_scales).round_().to(torch.int8), values.t())
        result = sums.float().mul_(input_scales).mul_(scales)
        if bias is not None:
            result += bias
        return gelu_of(result) if gelu else result

    return in_blocks(product)


@cache
def has_int8_kernel() -> bool:
    """Return whether PyTorch's int8 product works here, also for the largest values.

    Processors without VNNI add pairs of products in 16 bits, where the largest overflow.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randint(-127, 128, (16, 160), generator=generator).to(torch.int8) for _ in range(2))
    x[:4], weight[:4] = 127, 127
    x[4:8], weight[4:8] = -127, -127
    try:
        return torch.equal(torch._int_mm(x, weight.t()), plain_sums(x, weight.t()))
    except (AttributeError, RuntimeError):
        return False


def plain_sums(x: Int8[Tensor, "n i"], weight: Int8[Tensor, "i o"]) -> Int32[Tensor, "n o"]:
    """Return x weight by fp32 products of parts so narrow that their sums are exact."""
    sums = torch.zeros(x.shape[0], weight.shape[1], dtype=torch.int32)
    num_outputs = max(1, _CHUNK // _EXACT_COLUMNS)
    for first in range(0, x.shape[1], _EXACT_COLUMNS):
        some = slice(first, first + _EXACT_COLUMNS)
        part = x[:, some].float()
        for start in range(0, weight.shape[1], num_outputs):
            outputs = slice(start, start + num_outputs)
            sums[:, outputs] += (part @ weight[some, outputs].float()).to(torch.int32)
    return sums
