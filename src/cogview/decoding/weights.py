"""Weights prepared for decoding: those of a base once, and the additions of its adapters."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.decoding.config import Backend
from cogview.decoding.linear import DecodingLinear, prepare_linear, with_replaced_columns
from cogview.decoding.linear_int8 import int8_product
from cogview.decoding.memory import return_freed_memory
from cogview.errors import UsageError
from cogview.transformer.adapter import AdaptedTransformer, HeadRows, LowRankLinear, TokenTable
from cogview.transformer.attention import CausalSelfAttention
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.normalization import rowwise_norm
from cogview.transformer.quantized import QuantizedRows
from cogview.transformer.stored import StoredTransformer

if TYPE_CHECKING:
    from cogview.decoding.native import NativeBlocks

Norm = Callable[[Tensor], Tensor]
Addition = Callable[[Tensor], Tensor]
"""What an adapter adds to a linear map: rows [n i] to rows [n o]."""


@dataclass(frozen=True, kw_only=True)
class BlockMaps:
    """Linear maps of a block; Q comes divided by sqrt(head_size), unless a norm follows."""

    query_key_value: DecodingLinear
    attention_output: DecodingLinear
    mlp_inner: DecodingLinear
    mlp_output: DecodingLinear


@dataclass(frozen=True, kw_only=True)
class BlockVariant:
    """What a variant has of its own in a block: norms, and additions to linear maps, None for none."""

    attention_input_norm: Norm
    heads_norm: Norm
    attention_output_norm: Norm
    mlp_input_norm: Norm
    mlp_output_norm: Norm
    query_key_value: Addition | None
    attention_output: Addition | None
    mlp_inner: Addition | None
    mlp_output: Addition | None


class Variant:
    """A base, or one of its adapters at one strength: all that decoding needs beside the base's maps.

    Args:
        weights: of the base.
        config: of the transformer.
        embed_tokens: maps tokens [n] to rows [n d].
        own_rows: token table or head, if an adapter replaces some of its rows.
        positions: position table, [p d].
        final_norms: norms after the last block: the transformer's, and its head's if it has one.
        blocks: own part of each block.
    """

    def __init__(
        self,
        weights: "Weights",
        *,
        config: TransformerConfig,
        embed_tokens: Callable[[Tensor], Tensor],
        own_rows: TokenTable | HeadRows | None = None,
        positions: Float[Tensor, "p d"],
        final_norms: Sequence[nn.Module],
        blocks: Sequence[BlockVariant],
    ) -> None:
        self.config = config
        self.embed_tokens = embed_tokens
        self.positions = positions
        self.final_norm = _composed([weights.norm_of(norm) for norm in final_norms])
        self.blocks = blocks
        self._weights = weights
        self._own_rows = own_rows
        self._heads: dict[range, DecodingLinear] = {}

    def head(self, legal: range) -> DecodingLinear:
        """Return the map from states to the logits of the legal tokens, cached."""
        if legal not in self._heads:
            head = self._weights.head(legal)
            if self._own_rows is not None:
                places, *own = self._own_rows.own_in(legal)
                if len(places):
                    head = with_replaced_columns(head, places, self._weights.prepare_own(*own))
            self._heads[legal] = head
        return self._heads[legal]


class Weights:
    """Weights of a transformer, prepared once from their current values.

    Args:
        transformer: without adapter. A stored one is read block by block, so that no second copy is in memory.
        dtype: of the linear maps; the transformer's by default. x86 CPUs are faster with fp16, those with bf16
            instructions also with bf16, and those with VNNI most of all with int8.
        backend: kernels.
        batch_invariant: on CPU, make a row's bits independent of the batch; next to free with packed weights.
    """

    def __init__(
        self,
        transformer: Transformer | StoredTransformer,
        *,
        dtype: torch.dtype | None = None,
        backend: Backend = "auto",
        batch_invariant: bool = True,
    ) -> None:
        if isinstance(transformer, StoredTransformer):
            whole, table, blocks = transformer.outside_blocks(), transformer.table(), transformer.blocks()
            head = transformer.table("own_head.weight") if transformer.config.head == "own" else table
            dtype = dtype or transformer.dtype
        else:
            whole, table = transformer, transformer.embedding.tokens.weight.detach()
            head = transformer.head().detach()
            blocks = (block for block in transformer.blocks if isinstance(block, SandwichBlock))
        self.device = table.device
        self.dtype = dtype or table.dtype
        self.config = transformer.config
        self.native: NativeBlocks | None = None
        self.norm_of: Callable[[nn.Module], Norm] = rowwise_norm
        self.prepare_own: Callable[..., DecodingLinear]
        if backend == "native":
            native = _native(self.device)
            self.native = native.NativeBlocks(self.config, self.dtype)
            self.norm_of = native.native_norm
            self.prepare_own = partial(native.native_linear, dtype=self.compute_dtype)
        else:
            self.prepare_own = partial(
                prepare_linear, dtype=self.compute_dtype, backend=backend, batch_invariant=batch_invariant
            )
        is_int8 = self.dtype == torch.int8
        self.table = QuantizedRows.of(table) if is_int8 else table
        is_tied = self.config.head == "tied"
        self._head_rows = self.table if is_tied else QuantizedRows.of(head) if is_int8 else head
        bias = whole.head_bias()
        self._head_bias = None if bias is None else bias.detach()
        del table, head
        self._heads: dict[range, DecodingLinear] = {}
        self._lock = Lock()
        self.maps: list[BlockMaps] = []
        owns: list[BlockVariant] = []
        for block in blocks:
            self.maps.append(self._prepare_block(len(self.maps), block))
            owns.append(self._own(block))
        return_freed_memory()  # of copies for int8: 120 MB at 12 x 768
        embed = self.table.embedded if isinstance(self.table, QuantizedRows) else self._embedded
        self.base = Variant(
            self,
            config=self.config,
            embed_tokens=embed,
            positions=whole.embedding.position_table().detach(),
            final_norms=final_norms_of(whole),
            blocks=owns,
        )

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of all but the base's maps: theirs, or float32 beside int8."""
        return torch.float32 if self.dtype == torch.int8 else self.dtype

    def variant(self, transformer: AdaptedTransformer) -> Variant:
        """Prepare an adapter of this base; nothing of the base is copied."""
        table = transformer.embedding.tokens
        head = table if transformer.config.head == "tied" else transformer.own_head
        return Variant(
            self,
            config=transformer.config,
            embed_tokens=table,
            own_rows=head if isinstance(head, TokenTable | HeadRows) else None,
            positions=transformer.embedding.position_table().detach(),
            final_norms=final_norms_of(transformer),
            blocks=[self._own(block) for block in transformer.blocks if isinstance(block, SandwichBlock)],
        )

    def prepare(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None = None) -> DecodingLinear:
        """Prepare a map of the base."""
        if self.dtype != torch.int8:
            return self.prepare_own(weight, bias)
        return self._prepare_rows(QuantizedRows.of(weight), bias)

    def _prepare_rows(self, rows: QuantizedRows, bias: Float[Tensor, "o"] | None) -> DecodingLinear:
        return int8_product(rows, bias) if self.native is None else self.prepare_own(rows, bias)

    def head(self, legal: range) -> DecodingLinear:
        """Return the map from states to the logits of the legal tokens; only their rows are computed."""
        with self._lock:
            if legal not in self._heads:
                rows, own = self._head_rows, slice(legal.start, legal.stop)
                bias = None if self._head_bias is None else self._head_bias[own]
                if isinstance(rows, QuantizedRows):
                    self._heads[legal] = self._prepare_rows(rows[own], bias)
                else:
                    self._heads[legal] = self.prepare(rows[own], bias)
            return self._heads[legal]

    def _embedded(self, tokens: Tensor) -> Tensor:
        assert isinstance(self.table, Tensor), "rows of floats"
        return F.embedding(tokens, self.table)

    def _prepare_block(self, layer: int, block: SandwichBlock) -> BlockMaps:
        """Prepare a block's linear maps, without additions."""
        attention, mlp = block.attention, block.mlp
        to_heads = attention.query_key_value
        pairs = [
            (
                _with_scaled_query(to_heads.weight, self.config),
                _with_scaled_query(to_heads.bias, self.config),
            ),
            *((each.weight, each.bias) for each in (attention.output, mlp.inner, mlp.output)),
        ]
        if self.native is None:
            maps = [self.prepare(*pair) for pair in pairs]
        else:
            maps = self.native.put(layer, pairs, _norms_of(block))
        return BlockMaps(
            query_key_value=maps[0], attention_output=maps[1], mlp_inner=maps[2], mlp_output=maps[3]
        )

    def _own(self, block: SandwichBlock) -> BlockVariant:
        attention, mlp = block.attention, block.mlp
        before_attention, after_attention, before_mlp, after_mlp = map(self.norm_of, _norms_of(block))
        return BlockVariant(
            attention_input_norm=before_attention,
            heads_norm=_heads_norm(attention),
            attention_output_norm=after_attention,
            mlp_input_norm=before_mlp,
            mlp_output_norm=after_mlp,
            query_key_value=self._addition(attention.query_key_value, is_query_key_value=True),
            attention_output=self._addition(attention.output),
            mlp_inner=self._addition(mlp.inner),
            mlp_output=self._addition(mlp.output),
        )

    def _addition(self, module: nn.Linear, is_query_key_value: bool = False) -> Addition | None:
        """Return an adapter's addition to a map, if there is one."""
        if not isinstance(module, LowRankLinear):
            return None
        up = module.up.weight.detach().float() * module.scale
        if is_query_key_value:
            up = _with_scaled_query(up, self.config)
        down, up_map = self.prepare_own(module.down.weight), self.prepare_own(up)
        return lambda x: up_map(down(x))


def _native(device: torch.device) -> ModuleType:
    """Return the module of native kernels.

    Raises:
        UsageError: the device is no CPU, or Numba is missing.
    """
    if device.type != "cpu":
        raise UsageError(f"native kernels run on a CPU, not on {device}: leave them out")
    if importlib.util.find_spec("numba") is None:
        raise UsageError("native kernels need Numba: pip install 'cogview[native]', or leave them out")
    from cogview.decoding import native

    return native


def _norms_of(block: SandwichBlock) -> list[nn.Module]:
    return [
        block.attention_input_norm, block.attention_output_norm, block.mlp_input_norm, block.mlp_output_norm
    ]  # fmt: skip


def _composed(norms: Sequence[Norm]) -> Norm:
    """Return the function that applies norms one after the other."""
    if len(norms) == 1:
        return norms[0]
    return lambda x: reduce(lambda normed, norm: norm(normed), norms, x)


def _with_scaled_query(part: Float[Tensor, "o *i"], config: TransformerConfig) -> Float[Tensor, "o *i"]:
    """Return weight or bias of the map to Q, K and V with Q / sqrt(head_size), in fp32, unless a norm follows.

    For heads of 16, 64 or 256 channels this is exact; for others, weights with fewer bits than fp32 are rounded once
    more.
    """
    scaled = part.detach().to(torch.float32, copy=True)
    if not config.qk_norm:
        scaled[: config.hidden_size] *= config.head_size**-0.5
    return scaled


def final_norms_of(transformer: Transformer) -> list[nn.Module]:
    """Return the norms between the last block and the head."""
    return [transformer.final_norm, *([transformer.head_norm] if transformer.config.head == "own" else [])]


def _heads_norm(attention: CausalSelfAttention) -> Norm:
    """Return the function that normalises stacked Q, K and V and divides Q by sqrt(head_size), if the model has one."""
    query_norm, key_norm = attention.query_norm, attention.key_norm
    if not (isinstance(query_norm, nn.RMSNorm) and isinstance(key_norm, nn.RMSNorm)):
        return lambda heads: heads
    head_size = attention.config.head_size
    gains = torch.stack(
        [query_norm.weight.detach().float() * head_size**-0.5, key_norm.weight.detach().float()]
    )
    epsilon = query_norm.eps

    def normalised(heads: Tensor) -> Tensor:
        query_key, value = heads.float().view(len(heads), 3, -1, head_size).tensor_split((2,), dim=1)
        normed = F.rms_norm(query_key, (head_size,), eps=epsilon) * gains[:, None]
        return torch.cat([normed, value], dim=1).flatten(1)

    return normalised
