"""Linear maps, norms, attention and whole passes by the kernels of `native_kernels`, for PyTorch's tensors.

Needs Numba, so it is imported only where native kernels were asked for. Each map and norm is also a function by itself,
for passes with adapters; the bits are those of a whole pass.
"""

import itertools
from collections.abc import Callable, Sequence

import numba
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.decoding import native_kernels as kernels
from cogview.decoding.attention_layout import UNIT, Attend, AttentionLayout
from cogview.decoding.linear import DecodingLinear
from cogview.decoding.native_kernels import PLACEMENTS, VECTOR
from cogview.decoding.pool import PAGE, PagePool
from cogview.errors import UsageError
from cogview.transformer.config import TransformerConfig
from cogview.transformer.normalization import RelaxedLayerNorm, rowwise_epsilon
from cogview.transformer.quantized import QuantizedRows

Array = np.ndarray
LinearMap = tuple[Tensor | QuantizedRows, Tensor | None]
"""Weight [o i] and bias [o] of a linear map."""


class NativeMaps:
    """Linear maps of one shape.

    Args:
        num_maps: how many.
        num_inputs: i.
        num_outputs: o.
        dtype: of the weights: float32, bfloat16, float16 or int8.

    Attributes:
        tables: weights as `kernels.linear_map` reads them, [num_maps -1].
        scales: of outputs, [num_maps o], o a multiple of VECTOR.
        biases: of outputs, [num_maps o].
    """

    def __init__(self, num_maps: int, num_inputs: int, num_outputs: int, dtype: torch.dtype) -> None:
        self._shape = num_inputs, num_outputs
        num_padded = num_outputs + -num_outputs % VECTOR
        self._dtype = dtype
        self.tables = _array(torch.zeros(num_maps, num_padded * num_inputs, dtype=dtype))
        self.scales = np.ones((num_maps, num_padded), np.float32)
        self.biases = np.zeros((num_maps, num_padded), np.float32)

    def put(self, which: int, weight: Tensor | QuantizedRows, bias: Tensor | None = None) -> DecodingLinear:
        """Store a map, and return it as a function; the result is fp32.

        Args:
            which: index of the map.
            weight: of any floating dtype; int8 maps round its rows.
            bias: none if None.
        """
        if self._dtype == torch.int8 and isinstance(weight, Tensor):
            weight = QuantizedRows.of(weight)
        num_inputs, num_outputs = self._shape
        table, scales, biases = self.tables[which], self.scales[which], self.biases[which]
        values = weight.values if isinstance(weight, QuantizedRows) else weight.detach().to(self._dtype)
        parts = table.reshape(-1, num_inputs, VECTOR)
        num_whole = num_outputs // VECTOR
        whole = values[: num_whole * VECTOR].view(num_whole, VECTOR, num_inputs)
        parts[:num_whole] = _array(whole).transpose(0, 2, 1)
        if num_outputs % VECTOR:
            parts[-1, :, : num_outputs % VECTOR] = _array(values[num_whole * VECTOR :]).T
        if isinstance(weight, QuantizedRows):
            scales[:num_outputs] = weight.scales.numpy()
        if bias is not None:
            biases[:num_outputs] = bias.detach().float().numpy()

        def linear(x: Tensor, gelu: bool = False) -> Tensor:
            result = torch.empty(len(x), len(scales))
            if len(x):
                _set_threads()
                kernels.linear_map(_flat(x), len(x), table, scales, biases, gelu, _flat(result))
            return result if len(scales) == num_outputs else result[:, :num_outputs].contiguous()

        return linear


def native_linear(
    weight: Float[Tensor, "o i"] | QuantizedRows,
    bias: Float[Tensor, "o"] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> DecodingLinear:
    """Prepare x -> x weight^T + bias for many calls; a row has the same bits in any batch.

    Args:
        weight: copied.
        bias: none if None.
        dtype: to store the weight in; its own by default.
    """
    if isinstance(weight, QuantizedRows):
        shape, stored = weight.values.shape, torch.int8
    else:
        shape, stored = weight.shape, dtype or weight.dtype
    return NativeMaps(1, shape[1], shape[0], stored).put(0, weight, bias)


def native_norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a norm as a function, as `rowwise_norm` does."""
    if not isinstance(module, RelaxedLayerNorm):
        return lambda x: x.float()
    gains, shifts = (each.detach().float().numpy() for each in (module.weight, module.bias))
    is_relaxed, epsilon = _norm_kind(module)

    def norm(x: Tensor) -> Tensor:
        result = torch.empty(x.shape)
        _set_threads()
        kernels.layer_norm(_flat(x), len(x), is_relaxed, epsilon, gains, shifts, _flat(result))
        return result

    return norm


def _norm_kind(module: RelaxedLayerNorm) -> tuple[bool, np.float32]:
    """Return whether a row is divided by its largest magnitude first, and epsilon; see `rowwise_norm`."""
    return module.scope == "tensor", np.float32(rowwise_epsilon(module))


class NativeAttention:
    """Attention of a pass: it stores the new tokens in the pool and attends, as `attend_to_tables` does.

    Args:
        pool: on the CPU.
        layout: of the pass.

    Attributes:
        shape: as for `kernels.attend`.
        pool: as for `kernels.attend`.
        reads: as for `kernels.attend`.
        writes: as for `kernels.store`.
    """

    def __init__(self, pool: PagePool, layout: AttentionLayout) -> None:
        config, num = pool.config, len(layout.row_of)
        unit, most_together, biases = PAGE, kernels.MOST_SUMS, np.empty((0, 0, 0), np.float32)
        if layout.seen_units:
            unit, most_together = UNIT, 1
            units, biases = _unit_reads(layout)
        else:
            units = np.concatenate([layout.num_seen[:, None], layout.pages[layout.row_of]], axis=1)[None]
            if layout.biases is not None:
                biases = layout.biases.numpy()
        last = layout.last_entry
        last = np.full(num, np.iinfo(np.int64).max - 1) if last is None else last
        self.shape = config.num_heads, config.head_size, PAGE, unit
        self.pool = tuple(_array(each).reshape(config.num_layers, -1) for each in (pool.keys, pool.values))
        self.reads = _groups(layout.row_of, most_together), units, last, biases
        self.writes = _writes(layout)

    def __call__(self, layer: int, query_key_value: Tensor) -> Tensor:
        """Attend in one layer; see `Attend`."""
        heads, (num_heads, channels, *_) = _flat(query_key_value), self.shape
        result = torch.empty(len(query_key_value), num_heads * channels)
        _set_threads()
        kernels.store(layer, heads, self.shape, self.pool, self.writes)
        kernels.attend(layer, heads, self.shape, self.pool, self.reads, _flat(result))
        return result


def _writes(layout: AttentionLayout) -> Array:
    """Return token, page and offset of each entry to write, for each layer or once for all, [z m 3]."""
    every = np.arange(len(layout.row_of))
    kinds = [
        np.concatenate(
            [
                np.stack(
                    [
                        every if mapping.tokens is None else mapping.tokens.numpy(),
                        mapping.pages.numpy(),
                        mapping.offsets.numpy(),
                    ],
                    axis=1,
                )
                for mapping in mappings
            ]
        )
        for mappings in layout.slot_mappings
    ]
    writes = np.full((len(kinds), max(len(kind) for kind in kinds), 3), -1)
    for own, kind in zip(writes, kinds, strict=True):
        own[: len(kind)] = kind
    return writes


def _groups(row_of: Int64[np.ndarray, "n"], most: int) -> Int64[np.ndarray, "g 2"]:
    """Return first token and number of tokens of each group: adjacent ones of a row, at most so many."""
    starts = [0, *(np.flatnonzero(row_of[1:] != row_of[:-1]) + 1).tolist(), len(row_of)]
    firsts = [first for start, stop in itertools.pairwise(starts) for first in range(start, stop, most)]
    return np.array([(first, stop - first) for first, stop in itertools.pairwise([*firsts, len(row_of)])])


def _unit_reads(layout: AttentionLayout) -> tuple[Array, Array]:
    """Return the units that tokens read in each layer with a grid, and biases that hide the rest."""
    in_page = PAGE // UNIT
    pages, layers = layout.pages[layout.row_of], layout.seen_units
    most = max(int(seen.num_units.max()) for seen in layers)
    reads = np.zeros((len(layers), len(pages), 1 + most), np.int64)
    biases = np.full((len(layers), len(pages), most * UNIT), -np.inf, np.float32)
    for own_reads, own_biases, seen in zip(reads, biases, layers, strict=True):
        units = seen.units[:, :most]
        own_reads[:, 0] = seen.num_units
        own_reads[:, 1 : 1 + units.shape[1]] = (
            np.take_along_axis(pages, units // in_page, axis=1) * in_page + units % in_page
        )
        is_seen = seen.is_seen[:, : most * UNIT]
        own_biases[:, : is_seen.shape[1]][is_seen] = 0
    return reads, biases


class NativeBlocks:
    """All blocks of a base: a pass without adapters runs them in one call.

    Args:
        config: of the transformer.
        dtype: of the linear maps' weights.

    Raises:
        UsageError: the shape is none of the kernels'.
    """

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        if config.head_size % VECTOR:
            raise UsageError(
                f"native kernels need heads of a multiple of {VECTOR} channels, and the model's have "
                f"{config.head_size}: leave them out"
            )
        width, inner, num_layers = (
            config.hidden_size,
            config.mlp_factor * config.hidden_size,
            config.num_layers,
        )
        shapes = [(width, 3 * width), (width, width), (width, inner), (inner, width)]
        self.attention = NativeAttention
        self._maps = [NativeMaps(num_layers, *shape, dtype) for shape in shapes]
        # As `run_blocks` takes them, each with whether GELU follows.
        self._kernel_maps = tuple(
            (each.tables, each.scales, each.biases, has_gelu)
            for each, has_gelu in zip(self._maps, (False, False, True, False), strict=True)
        )
        self._norms = (
            np.zeros((num_layers, 4, width), np.float32),
            np.zeros((num_layers, 4, width), np.float32),
        )
        self._norm_kind = False, np.float32(0)
        self._placement = PLACEMENTS.index(config.layer_norm)
        self._has_head_norms = config.qk_norm

    def put(self, layer: int, maps: Sequence[LinearMap], norms: Sequence[nn.Module]) -> list[DecodingLinear]:
        """Store a block, and return its maps as functions.

        Args:
            layer: its number.
            maps: to Q, K and V; from attention; both of the MLP.
            norms: before and after attention; before and after the MLP.
        """
        for which, norm in enumerate(norms):
            if isinstance(norm, RelaxedLayerNorm):
                self._norm_kind = _norm_kind(norm)
                for numbers, own in zip(self._norms, (norm.weight, norm.bias), strict=True):
                    numbers[layer, which] = own.detach().float().numpy()
        return [own.put(layer, *each) for own, each in zip(self._maps, maps, strict=True)]

    def takes(self, attend: Attend) -> bool:
        """Return whether `run` can run a pass with this attention."""
        return isinstance(attend, NativeAttention) and not self._has_head_norms

    def run(self, x: Float[Tensor, "n d"], attend: Attend) -> Float[Tensor, "n d"]:
        """Run embedded tokens through all blocks."""
        assert isinstance(attend, NativeAttention), "what `takes` says"
        x = x.to(torch.float32, copy=True)
        _set_threads()
        kernels.run_blocks(
            _flat(x),
            len(x),
            self._kernel_maps,
            self._norms,
            self._norm_kind,
            self._placement,
            attend.shape,
            attend.pool,
            attend.reads,
            attend.writes,
        )
        return x


def _flat(x: Tensor) -> Array:
    """Return the numbers of rows one after the other, the same memory if they are fp32 already."""
    return x.float().contiguous().view(-1).numpy()


def _array(tensor: Tensor) -> Array:
    """Return the same memory as an array: of uint16 for float16, of int16 for bfloat16."""
    if tensor.dtype not in (torch.float16, torch.bfloat16):
        return tensor.numpy()
    array: Array = tensor.view(torch.int16).numpy()
    return array.view(np.uint16) if tensor.dtype == torch.float16 else array


def _set_threads() -> None:
    """Let kernels take as many threads as PyTorch does."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
