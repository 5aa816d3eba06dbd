"""The transformer as decoding runs it: small functions over prepared weights and a static cache.

It computes what `Transformer.extend` computes, which is the plain form to read and the one it is tested against. It
is faster because weights are prepared once, nothing is a module call, and only the logits of legal codes are made.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.generation.cache import DecodingCache, FusedCache, SparseCache, TableCache
from cogview.generation.config import LinearBackend
from cogview.generation.linear import DecodingLinear, prepare_linear, with_addition, with_replaced_columns
from cogview.transformer.adapter import AdaptedTransformer, LowRankLinear, TokenTable
from cogview.transformer.attention import CausalSelfAttention
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.normalization import RelaxedLayerNorm

_Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class _Maps:
    """One block's linear maps; the query comes divided by the square root of the head's size, unless a norm follows."""

    query_key_value: DecodingLinear
    attention_output: DecodingLinear
    mlp_inner: DecodingLinear
    mlp_output: DecodingLinear


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One block's linear maps and norms; a norm that the block does not have returns its input."""

    maps: _Maps
    attention_input_norm: _Norm
    heads_norm: _Norm
    attention_output_norm: _Norm
    mlp_input_norm: _Norm
    mlp_output_norm: _Norm


class Decoder:
    """A transformer whose weights are prepared for decoding.

    Activations of the main branch and norms are fp32 whatever the dtype of the weights. On CPU the cache is fp32 beside
    fp32 weights and fp16 beside those of half precision: bf16 would round scores to three digits.

    Args:
        transformer: its weights are taken as they are now.
        legal_codes: the tokens that may be sampled: the only rows of the head that are computed.
        dtype: of the linear maps; the transformer's by default.
        backend: kernels of the linear maps.
        batch_invariant: on CPU, make a sequence's states the same bits in any company.
    """

    def __init__(
        self,
        transformer: Transformer,
        legal_codes: range,
        *,
        dtype: torch.dtype | None = None,
        backend: LinearBackend = "auto",
        batch_invariant: bool = True,
    ) -> None:
        table = transformer.embedding.tokens.weight.detach()
        self.device = table.device
        self.dtype = dtype or table.dtype
        self.config = transformer.config
        self._legal_codes = legal_codes
        self._prepare = partial(
            prepare_linear, dtype=self.dtype, backend=backend, batch_invariant=batch_invariant
        )
        modules = [module for module in transformer.blocks if isinstance(module, SandwichBlock)]
        self._maps = [self._maps_of(module) for module in modules]
        self._whole_head = self._prepare(table[legal_codes.start : legal_codes.stop])
        self._take(transformer)

    def adapted(self, transformer: AdaptedTransformer, legal_codes: range | None = None) -> "Decoder":
        """Return the decoder of this one's transformer with an adapter, whose maps lie beside the prepared ones.

        Nothing of the base is prepared again or copied, but the head if its rows are others, and this decoder stays as
        it is.

        Args:
            transformer: of this decoder's base.
            legal_codes: the tokens that may be sampled; this decoder's by default.
        """
        decoder = copy(self)
        if legal_codes is not None:
            table = transformer.embedding.tokens.weight.detach()
            decoder._legal_codes = legal_codes
            decoder._whole_head = self._prepare(table[legal_codes.start : legal_codes.stop])
        decoder._take(transformer)
        return decoder

    def _maps_of(self, block: SandwichBlock) -> _Maps:
        """Prepare a block's linear maps, without what an adapter may add."""
        attention, mlp = block.attention, block.mlp
        query_key_value = attention.query_key_value
        return _Maps(
            query_key_value=self._prepare(
                _with_scaled_query(query_key_value.weight, self.config),
                _with_scaled_query(query_key_value.bias, self.config),
            ),
            attention_output=self._prepare(attention.output.weight, attention.output.bias),
            mlp_inner=self._prepare(mlp.inner.weight, mlp.inner.bias),
            mlp_output=self._prepare(mlp.output.weight, mlp.output.bias),
        )

    def _take(self, transformer: Transformer) -> None:
        """Take over all of a transformer but the maps that are prepared, and put beside these what an adapter adds."""
        self.config = transformer.config
        table = transformer.embedding.tokens
        self._embed_token: Callable[[Tensor], Tensor] = partial(F.embedding, weight=table.weight.detach())
        self._head = self._whole_head
        if isinstance(table, TokenTable):
            self._embed_token = table
            places, rows = table.own_in(self._legal_codes)
            if len(places):
                self._head = with_replaced_columns(self._head, places, self._prepare(rows))
        self._positions = transformer.embedding.positions.weight.detach()
        self._final_norm = _norm(transformer.final_norm)
        modules = [module for module in transformer.blocks if isinstance(module, SandwichBlock)]
        self._blocks = [
            _Block(
                maps=_Maps(
                    query_key_value=self._with_adapter(
                        maps.query_key_value, module.attention.query_key_value, is_query_key_value=True
                    ),
                    attention_output=self._with_adapter(maps.attention_output, module.attention.output),
                    mlp_inner=self._with_adapter(maps.mlp_inner, module.mlp.inner),
                    mlp_output=self._with_adapter(maps.mlp_output, module.mlp.output),
                ),
                attention_input_norm=_norm(module.attention_input_norm),
                heads_norm=_heads_norm(module.attention),
                attention_output_norm=_norm(module.attention_output_norm),
                mlp_input_norm=_norm(module.mlp_input_norm),
                mlp_output_norm=_norm(module.mlp_output_norm),
            )
            for maps, module in zip(self._maps, modules, strict=True)
        ]

    def _with_adapter(
        self, linear: DecodingLinear, module: nn.Linear, is_query_key_value: bool = False
    ) -> DecodingLinear:
        """Return a prepared map with what an adapter adds to it, if one does."""
        if not isinstance(module, LowRankLinear):
            return linear
        up = module.up.weight.detach().float() * module.scale
        if is_query_key_value:
            up = _with_scaled_query(up, self.config)
        return with_addition(linear, self._prepare(module.down.weight), self._prepare(up))

    def new_cache(self, batch: int, max_tokens: int, start: int = 0) -> DecodingCache:
        """Return an empty cache of the kind that attention is fastest in here; sequences begin at place `start`."""
        if self.config.attention_pattern == "three_region":
            dtype = torch.float32 if self.device.type == "cpu" else self.dtype
            return SparseCache(self.config, batch, max_tokens, dtype, self.device, start)
        if self.device.type == "cpu":
            dtype = torch.float32 if self.dtype == torch.float32 else torch.float16
            return TableCache(self.config, batch, max_tokens, dtype, start)
        return FusedCache(self.config, batch, max_tokens, self.dtype, self.device, start)

    def logits(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """Return the logits of the legal codes."""
        return self._head(hidden)

    def prefill(
        self, tokens: Int64[Tensor, "b t"], positions: Int64[Tensor, "b t"], cache: DecodingCache
    ) -> Float[Tensor, "b d"]:
        """Put all tokens into the empty cache and return the normalised state of the last.

        With three-region attention they have to be text, all of which is seen.
        """
        assert cache.length == 0, "prefill starts a sequence"
        b, t = tokens.shape
        x = self._embed(tokens, positions).flatten(0, 1)
        # A CPU computes whole attention slowly in half precision.
        in_dtype = torch.float32 if self.device.type == "cpu" else cache.keys.dtype

        # Plain annotations in here: those of shapes would be evaluated at each step.
        def attend(layer: int, query_key_value: Tensor) -> Tensor:
            heads = query_key_value.view(b, t, 3, self.config.num_heads, self.config.head_size)
            query, key, value = heads.permute(2, 0, 3, 1, 4).to(in_dtype)
            cache.fill(layer, key, value)
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
            return attended.transpose(1, 2).reshape(b * t, self.config.hidden_size)

        x = self._through_blocks(x, attend)
        cache.length = cache.starts[0] + t
        return self._final_norm(x.view(b, t, -1)[:, -1])

    def decode(
        self, tokens: Int64[Tensor, "b"], positions: Int64[Tensor, "b"], cache: DecodingCache
    ) -> Float[Tensor, "b d"]:
        """Append one token to each sequence of the cache and return its normalised state."""
        assert cache.length < cache.max_tokens, "the cache is full"
        attend_to_all = cache.step()

        def attend(layer: int, query_key_value: Tensor) -> Tensor:
            heads = query_key_value.view(len(query_key_value), 3, self.config.num_heads, -1)
            return attend_to_all(layer, heads).flatten(1)

        x = self._through_blocks(self._embed(tokens, positions), attend)
        cache.length += 1
        return self._final_norm(x)

    def _embed(self, tokens: Int64[Tensor, "*n"], positions: Int64[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Return the sum of token and position embeddings in fp32."""
        return self._embed_token(tokens).float() + F.embedding(positions, self._positions).float()

    def _through_blocks(
        self, x: Float[Tensor, "n d"], attend: Callable[[int, Tensor], Tensor]
    ) -> Float[Tensor, "n d"]:
        """Apply all blocks; `attend` maps a layer's number and its stacked Q, K and V to what was attended to."""
        is_post = self.config.layer_norm == "post"
        for layer, block in enumerate(self._blocks):
            maps = block.maps
            heads = block.heads_norm(maps.query_key_value(block.attention_input_norm(x)))
            attended = maps.attention_output(attend(layer, heads))
            if is_post:
                x = block.attention_output_norm(x + attended)
                x = block.mlp_output_norm(x + maps.mlp_output(maps.mlp_inner(x, gelu=True)))
            else:
                x = x + block.attention_output_norm(attended)
                mapped = maps.mlp_output(maps.mlp_inner(block.mlp_input_norm(x), gelu=True))
                x = x + block.mlp_output_norm(mapped)
        return x


def _with_scaled_query(part: Float[Tensor, "o *i"], config: TransformerConfig) -> Float[Tensor, "o *i"]:
    """Return weight or bias of a map to Q, K and V with Q / sqrt(head_size), in fp32, unless a norm follows.

    For heads of 16, 64 or 256 channels this loses nothing; for others, weights that are rounded to fewer bits than
    fp32 are rounded once more than they were.
    """
    scaled = part.detach().to(torch.float32, copy=True)
    if not config.qk_norm:
        scaled[: config.hidden_size] *= config.head_size**-0.5
    return scaled


def _heads_norm(attention: CausalSelfAttention) -> _Norm:
    """Return what normalises stacked Q, K and V where they are, and divides Q by sqrt(head_size), if anything does."""
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


def _norm(module: nn.Module) -> _Norm:
    """Return a norm as a function from any floating dtype to fp32.

    In fp32 nothing overflows, so the division by the largest magnitude m can be left out: with scope `token`
    LayerNorm(x / m) with epsilon / width is LayerNorm(x) with epsilon m^2 / width, at most half of epsilon away
    from LayerNorm(x) without one. With scope `tensor` epsilon is too large for that; its maximum is then taken
    over each row, which is the whole tensor when one sequence is decoded, and does not couple sequences.
    """
    if not isinstance(module, RelaxedLayerNorm):
        return lambda x: x.float()
    shape, epsilon = list(module.normalized_shape), module.eps
    weight, bias = module.weight.detach().float(), module.bias.detach().float()
    if module.scope == "tensor":
        tiny = torch.finfo(torch.float32).tiny

        def relaxed(x: Tensor) -> Tensor:
            x = x.float()
            largest = x.abs().amax(dim=-1, keepdim=True) / 8
            return torch.layer_norm(x / largest.clamp(min=tiny), shape, weight, bias, epsilon)

        return relaxed
    if module.scope == "token":
        epsilon = 1e-30  # only so that a row of zeros stays zeros
    return lambda x: torch.layer_norm(x.float(), shape, weight, bias, epsilon)
