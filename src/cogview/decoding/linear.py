"""Linear maps prepared for decoding, where a few rows meet large matrices and reading the weights is the cost.

On CPU the weights are reordered once into the layout that the kernels read fastest: oneDNN's for fp32 and bf16,
FBGEMM's for fp16, which stays fp16 in memory and is computed with in fp32. PyTorch's own choice for fp32, MKL, is much
slower on AMD processors, and where oneDNN is used it reorders the weights anew for every product. The operators
that do it are not part of PyTorch's documented interface. So whether they exist and work is found by trial; if not,
products are plain.
"""

from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.torch_version import TorchVersion

from cogview.decoding.config import LinearBackend
from cogview.decoding.threads import thread_counts, threads
from cogview.errors import UsageError


@runtime_checkable
class DecodingLinear(Protocol):
    """Linear map prepared for many calls."""

    def __call__(self, x: Float[Tensor, "n i"], gelu: bool = False) -> Float[Tensor, "n o"]:
        """Map rows of any floating dtype, then apply GELU (tanh form) if asked.

        The result has the dtype of the weights; with packed fp16, fp32.
        """
        ...


_PACKED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCKS = (8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512)
"""Numbers of rows that packed kernels run.

For each number of rows and shape of weights, oneDNN generates and keeps half a megabyte of code (torch 2.13,
`findings/memory-for-each-number-of-rows.sh`). Up to 16 rows take no longer than one.
"""
_ROW_MULTIPLES = (1, 2, 3, 4, 6, 8)
_MAX_GELU = (1 << 15) - 1
_NUM_TRIED_ROWS = 48  # a multiple of them all
HALVES_ROWS = TorchVersion(torch.__version__) < "2.13"
"""Whether oneDNN computes more than some hundred rows in two halves, each of which then needs the multiple."""


@cache
def can_pack(device_type: str, dtype: torch.dtype) -> bool:
    """Return whether weights of a dtype can be packed here.

    Args:
        device_type: "cpu" or "cuda".
        dtype: of the weights.
    """
    if device_type != "cpu" or dtype not in _PACKED_DTYPES:
        return False
    try:
        if dtype != torch.float16 and not torch._C._has_mkldnn:
            return False
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        weight, x = torch.eye(16, dtype=dtype), torch.ones(2, 16, dtype=dtype)
        return torch.equal(_packed_product(weight, None)(x).to(dtype), x)
    except (AttributeError, RuntimeError):
        return False


def prepare_linear(
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, "o"] | None = None,
    *,
    dtype: torch.dtype | None = None,
    backend: LinearBackend = "auto",
    batch_invariant: bool = True,
) -> DecodingLinear:
    """Prepare x -> x weight^T + bias for many calls.

    Args:
        weight: unchanged; later changes to it may or may not take effect.
        bias: none if None.
        dtype: of the computation; the weight's by default.
        backend: `packed`, `plain`, or `auto` for packed where possible.
        batch_invariant: pad rows where a row's bits would otherwise depend on the number of rows.

    Raises:
        UsageError: packed weights were requested, and this machine or PyTorch cannot pack them.
    """
    dtype = dtype or weight.dtype
    weight = weight.detach().to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    packed = backend != "plain" and can_pack(weight.device.type, dtype)
    if backend == "packed" and not packed:
        raise UsageError(
            f"cannot pack {dtype} weights on {weight.device.type} here: use the plain backend, or auto"
        )
    product = (_packed_product if packed else _plain_product)(weight, bias)
    multiple = 1
    if batch_invariant and weight.device.type == "cpu":
        multiple = row_multiple(
            weight.shape[1], weight.shape[0], dtype, packed, torch.get_num_threads(), bias is not None
        )
    if packed:
        return in_blocks(product, multiple)
    return product if multiple == 1 else _in_multiples(product, multiple)


def in_blocks(product: DecodingLinear, multiple: int = 1) -> DecodingLinear:
    """Restrict a product to a few numbers of rows.

    Args:
        product: for any number of rows.
        multiple: of the number of rows.
    """
    max_rows = _run_rows(BLOCKS[-1], multiple)

    def in_some_blocks(x: Tensor, gelu: bool = False) -> Tensor:
        if len(x) > max_rows:
            starts = range(0, len(x), max_rows)
            return torch.cat([in_some_blocks(x[start : start + max_rows], gelu) for start in starts])
        return _padded_product(product, x, gelu, _run_rows(len(x), multiple))

    return in_some_blocks


def _in_multiples(product: DecodingLinear, multiple: int) -> DecodingLinear:
    return lambda x, gelu=False: _padded_product(product, x, gelu, len(x) + -len(x) % multiple)


def _padded_product(product: DecodingLinear, x: Tensor, gelu: bool, num_run: int) -> Tensor:
    num_rows = len(x)
    if num_run == num_rows or not num_rows:
        return product(x, gelu)
    # Rows of any content do; joining costs less than filling with zeros.
    return product(torch.cat([x, x[:1].expand(num_run - num_rows, -1)]), gelu)[:num_rows]


def padded_rows(num_rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return how many rows packed kernels run for some: blocks of the largest size, and one for the rest.

    Args:
        num_rows: 0 counts as 1.
    """
    rows = np.maximum(num_rows, 1)
    before = (rows - 1) // BLOCKS[-1] * BLOCKS[-1]
    blocks = np.array(BLOCKS, dtype=np.int64)
    return before + blocks[np.searchsorted(blocks, rows - before)]


@cache
def _run_rows(num_rows: int, multiple: int) -> int:
    run = int(padded_rows(np.array([num_rows]))[0])
    return run + -run % multiple


@cache
def row_multiple(
    num_inputs: int,
    num_outputs: int,
    dtype: torch.dtype,
    packed: bool,
    num_threads: int,
    has_bias: bool = False,
) -> int:
    """Find the multiple to pad rows to so that a row's bits do not depend on the batch.

    Kernels sum in another order for a single row, or at the ragged end of a block of rows. Which ones do depends on
    processor and shape, so it is found by trial. With torch 2.13, packed half precision keeps its bits where fp32 does
    not (`findings/bits-of-a-row.sh`).

    Args:
        num_inputs: columns of the weight.
        num_outputs: rows of the weight.
        dtype: of weight and input.
        packed: whether the weight is packed.
        num_threads: PyTorch's maximum; the result holds for all counts of `ThreadChoice`.
        has_bias: of the map; without, oneDNN generates other code.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_outputs, num_inputs, generator=generator).to(dtype)
    x = torch.randn(_NUM_TRIED_ROWS, num_inputs, generator=generator).to(dtype)
    bias = torch.zeros(num_outputs, dtype=dtype) if has_bias else None
    product = (_packed_product if packed else _plain_product)(weight, bias)
    counts = thread_counts(num_threads)
    with threads(counts[0]):
        together = product(x)

    def is_same(num: int, size: int) -> bool:
        with threads(num):
            return torch.equal(product(x[:size]), together[:size])

    for multiple in _ROW_MULTIPLES:
        sizes = {
            _run_rows(size, multiple) if packed else size + -size % multiple for size in range(1, len(x))
        }
        if all(is_same(num, size) for num in counts for size in sorted(sizes)):
            return 2 * multiple if packed and multiple > 1 and HALVES_ROWS else multiple
    return 1  # no padding helps; rows may then differ in their last bits


def _packed_product(weight: Tensor, bias: Tensor | None) -> DecodingLinear:
    return (_fbgemm_product if weight.dtype == torch.float16 else _onednn_product)(weight, bias)


def _fbgemm_product(weight: Tensor, bias: Tensor | None) -> DecodingLinear:
    """Return the product with an fp16 weight packed by FBGEMM; input, sums and result are fp32."""
    bias = None if bias is None else bias.float()
    packed = torch.ops.quantized.linear_prepack_fp16.default(weight.float(), bias)
    operator = torch.ops.quantized.linear_dynamic_fp16.default

    def product(x: Tensor, gelu: bool = False) -> Tensor:
        result: Tensor = operator(x.float(), packed)
        return gelu_of(result) if gelu else result

    return product


def gelu_of(x: Float[Tensor, "n o"]) -> Float[Tensor, "n o"]:
    """Apply GELU (tanh form), with the same bits on any number of threads.

    PyTorch splits 32,768 values or more among threads, at places where vector instructions give other bits.
    """
    if x.device.type != "cpu" or x.numel() <= _MAX_GELU:
        return F.gelu(x, approximate="tanh")
    parts = torch.split(x, max(1, _MAX_GELU // x.shape[1]))
    return torch.cat([F.gelu(part, approximate="tanh") for part in parts])


def _onednn_product(weight: Tensor, bias: Tensor | None) -> DecodingLinear:
    """Return the product with a weight packed by oneDNN, with GELU fused."""
    packed, dtype = torch.ops.mkldnn._reorder_linear_weight.default(weight), weight.dtype
    operator = torch.ops.mkldnn._linear_pointwise.default

    def product(x: Tensor, gelu: bool = False) -> Tensor:
        after, form = ("gelu", "tanh") if gelu else ("none", "")
        result: Tensor = operator(x.to(dtype), packed, bias, after, [], form)
        return result

    return product


def _plain_product(weight: Tensor, bias: Tensor | None) -> DecodingLinear:

    def product(x: Tensor, gelu: bool = False) -> Tensor:
        result = F.linear(x.to(weight.dtype), weight, bias)
        return gelu_of(result) if gelu else result

    return product


def with_replaced_columns(
    linear: DecodingLinear, columns: Int64[Tensor, "k"], replacement: DecodingLinear
) -> DecodingLinear:
    """Replace some output columns of a map by those of another."""

    def replaced(x: Tensor, gelu: bool = False) -> Tensor:
        return linear(x, gelu).index_copy(1, columns, replacement(x, gelu))

    return replaced
