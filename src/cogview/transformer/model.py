"""The transformer of CogView: tokens to logits."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.transformer.attention import CausalSelfAttention, Pattern
from cogview.transformer.block import SandwichBlock, layer_norm
from cogview.transformer.cache import KeyValueCache
from cogview.transformer.config import AttentionKind, TransformerConfig
from cogview.transformer.embedding import Embedding
from cogview.transformer.grid_attention import layer_grids
from cogview.transformer.three_region import count_text, draw_regions


class Transformer(nn.Module):
    """Unidirectional transformer over text pieces and image codes.

    Letters: b sequences, t tokens, d width, v vocabulary.

    Args:
        config: shape and stabilisers.

    Paper: 2.3 and figure 3.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(SandwichBlock(config) for _ in range(config.num_layers))
        self.final_norm = layer_norm(config)
        # Made once: the compiler does not trace how they are made.
        self._grids = layer_grids(config.grid) if config.attention_pattern == "grid" else ()
        if config.head == "own":
            self.head_norm = layer_norm(config)
            self.own_head = nn.Linear(config.hidden_size, config.vocabulary_size)
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights from N(0, 0.02), with residual outputs scaled down by depth."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                is_residual_output = name.endswith("output.weight")
                depth_factor = 1 / math.sqrt(2 * self.config.num_layers) if is_residual_output else 1.0
                nn.init.normal_(parameter, std=0.02 * depth_factor)

    def forward(self, tokens: Int[Tensor, "b t"], positions: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Return the logits of each token's successor, over the whole (padded) vocabulary.

        Args:
            tokens: ids below `config.vocabulary_size`.
            positions: ids below `config.num_positions`, from a template; not necessarily 0, 1, 2, ...
        """
        return self.logits(self.hidden_states(tokens, positions))

    def hidden_states(
        self,
        tokens: Int[Tensor, "b t"],
        positions: Int[Tensor, "b t"],
        pivot_seeds: Int64[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return the normalised states that `logits` takes.

        Args:
            tokens: ids below `config.vocabulary_size`.
            positions: ids below `config.num_positions`.
            pivot_seeds: of each sequence, if attention is sparse; by default random in training and fixed in
                evaluation.
        """
        # Drawn here for all layers, so that a block recomputed in the backward pass sees the same pivots.
        patterns = self._patterns(tokens, pivot_seeds)
        x = self.embedding(tokens, positions)
        for block, pattern in zip(self.blocks, patterns, strict=True):
            x = block(x, pattern=pattern)
        return self._normalised(x)

    def _normalised(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Apply the final norm, and the head's if it has one."""
        x = self.final_norm(x)
        return self.head_norm(x) if self.config.head == "own" else x

    def _patterns(self, tokens: Int[Tensor, "b t"], seeds: Int64[Tensor, "b"] | None) -> Sequence[Pattern]:
        """Return what each layer's sparse attention sees; None if attention is dense."""
        if self.config.attention_pattern == "dense":
            return [None] * self.config.num_layers
        if self.config.attention_pattern == "grid":
            return self._grids
        config = self.config.three_region
        num_text = count_text(tokens, config.image_start_token)
        if seeds is None:
            seeds = torch.randint_like(num_text, 2**31) if self.training else torch.zeros_like(num_text)
        return draw_regions(num_text, seeds, tokens.shape[1], self.config.num_layers, config)

    def logits(self, hidden: Float[Tensor, "*n d"], rows: range | None = None) -> Float[Tensor, "*n v"]:
        """Return logits of all tokens, or of the tokens in `rows` only.

        Args:
            hidden: from `hidden_states` or `extend`.
            rows: legal tokens, to skip the others.
        """
        return F.linear(hidden, self.head(rows), self.head_bias(rows))

    def head(self, rows: range | None = None) -> Float[Tensor, "v d"]:
        """Return the rows of the head: all, or those of the tokens in `rows`."""
        table = self.own_head.weight if self.config.head == "own" else self.embedding.tokens.weight
        return table if rows is None else table[rows.start : rows.stop]

    def head_bias(self, rows: range | None = None) -> Float[Tensor, "v"] | None:
        """Return the bias of the head, if it has one: all, or that of the tokens in `rows`."""
        if self.config.head != "own":
            return None
        bias = self.own_head.bias
        return bias if rows is None else bias[rows.start : rows.stop]

    def extend(
        self, tokens: Int[Tensor, "b t"], positions: Int[Tensor, "b t"], cache: KeyValueCache
    ) -> Float[Tensor, "b t d"]:
        """Append tokens to the sequences in `cache`, and return the new tokens' normalised states.

        Args:
            tokens: one or more tokens of each sequence.
            positions: their positions.
            cache: earlier tokens; these are appended.
        """
        assert cache.length + tokens.shape[1] <= cache.max_tokens, "the cache is full"
        x = self.embedding(tokens, positions)
        patterns = cache.patterns_with(tokens)
        for index, (block, pattern) in enumerate(zip(self.blocks, patterns, strict=True)):
            x = block(x, cache.layer(index), pattern)
        cache.length += tokens.shape[1]
        return self._normalised(x)

    def compute_attention(self, kind: AttentionKind) -> None:
        """Switch the computation of attention; results differ only by rounding."""
        self.config = replace(self.config, attention=kind)
        for module in self.modules():
            if isinstance(module, CausalSelfAttention):
                module.config = self.config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embedding.tokens.weight.device
