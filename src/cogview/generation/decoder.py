"""The transformer as decoding runs it: small functions over prepared weights and a static cache.

It computes what `Transformer.extend` computes, which is the plain form to read and the one it is tested against. It
is faster because weights are prepared once, nothing is a module call, and only the logits of legal codes are made.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.generation.cache import DecodingCache, FusedCache, SparseCache, TableCache
from cogview.generation.config import LinearBackend
from cogview.generation.linear import DecodingLinear, prepare_linear
from cogview.transformer.attention import CausalSelfAttention
from cogview.transformer.block import SandwichBlock
from cogview.transformer.model import Transformer
from cogview.transformer.normalization import RelaxedLayerNorm

_Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One block's norms and linear maps; a norm that the block does not have returns its input.

    The query that `heads_norm` gives is divided by the square root of the head's size already.
    """

    attention_input_norm: _Norm
    query_key_value: DecodingLinear
    heads_norm: _Norm
    attention_output: DecodingLinear
    attention_output_norm: _Norm
    mlp_input_norm: _Norm
    mlp_inner: DecodingLinear
    mlp_output: DecodingLinear
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
        self.config = transformer.config
        self.device = table.device
        self.dtype = dtype or table.dtype

        def linear(weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> DecodingLinear:
            return prepare_linear(
                weight, bias, dtype=self.dtype, gelu=gelu, backend=backend, batch_invariant=batch_invariant
            )

        def block(module: SandwichBlock) -> _Block:
            attention, mlp = module.attention, module.mlp
            return _Block(
                attention_input_norm=_norm(module.attention_input_norm),
                query_key_value=linear(*_with_scaled_query(attention)),
                heads_norm=_heads_norm(attention),
                attention_output=linear(attention.output.weight, attention.output.bias),
                attention_output_norm=_norm(module.attention_output_norm),
                mlp_input_norm=_norm(module.mlp_input_norm),
                mlp_inner=linear(mlp.inner.weight, mlp.inner.bias, gelu=True),
                mlp_output=linear(mlp.output.weight, mlp.output.bias),
                mlp_output_norm=_norm(module.mlp_output_norm),
            )

        self._tokens = table
        self._positions = transformer.embedding.positions.weight.detach()
        self._blocks = [block(module) for module in transformer.blocks if isinstance(module, SandwichBlock)]
        self._final_norm = _norm(transformer.final_norm)
        self._head = linear(table[legal_codes.start : legal_codes.stop])

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

        def attend(layer: int, query_key_value: Float[Tensor, "n d3"]) -> Float[Tensor, "n d"]:
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

        def attend(layer: int, query_key_value: Float[Tensor, "b d3"]) -> Float[Tensor, "b d"]:
            heads = query_key_value.view(len(query_key_value), 3, self.config.num_heads, -1)
            return attend_to_all(layer, heads).flatten(1)

        x = self._through_blocks(self._embed(tokens, positions), attend)
        cache.length += 1
        return self._final_norm(x)

    def _embed(self, tokens: Int64[Tensor, "*n"], positions: Int64[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Return the sum of token and position embeddings in fp32."""
        return F.embedding(tokens, self._tokens).float() + F.embedding(positions, self._positions).float()

    def _through_blocks(
        self, x: Float[Tensor, "n d"], attend: Callable[[int, Tensor], Tensor]
    ) -> Float[Tensor, "n d"]:
        """Apply all blocks; `attend` maps a layer's number and its stacked Q, K and V to what was attended to."""
        is_post = self.config.layer_norm == "post"
        for layer, block in enumerate(self._blocks):
            heads = block.heads_norm(block.query_key_value(block.attention_input_norm(x)))
            attended = block.attention_output(attend(layer, heads))
            if is_post:
                x = block.attention_output_norm(x + attended)
                x = block.mlp_output_norm(x + block.mlp_output(block.mlp_inner(x)))
            else:
                x = x + block.attention_output_norm(attended)
                mapped = block.mlp_output(block.mlp_inner(block.mlp_input_norm(x)))
                x = x + block.mlp_output_norm(mapped)
        return x


def _with_scaled_query(attention: CausalSelfAttention) -> tuple[Float[Tensor, "o i"], Float[Tensor, "o"]]:
    """Return weight and bias of a map to Q, K and V with Q / sqrt(head_size), in fp32, unless a norm follows.

    For heads of 16, 64 or 256 channels this loses nothing; for others, weights that are rounded to fewer bits than
    fp32 are rounded once more than they were.
    """
    module, config = attention.query_key_value, attention.config
    weight, bias = (part.detach().to(torch.float32, copy=True) for part in (module.weight, module.bias))
    if not config.qk_norm:
        weight[: module.in_features] *= config.head_size**-0.5
        bias[: module.in_features] *= config.head_size**-0.5
    return weight, bias


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
