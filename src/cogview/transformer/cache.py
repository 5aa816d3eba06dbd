"""Static key/value cache: allocated once, sliced to its length."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cogview.transformer.config import TransformerConfig
from cogview.transformer.grid_attention import LayerGrid, layer_grids
from cogview.transformer.three_region import Regions, count_text, draw_regions


class LayerCache:
    """Keys and values of one layer; a view of the whole cache."""

    def __init__(self, cache: "KeyValueCache", layer: int) -> None:
        self._cache = cache
        self._pairs = cache.pairs[layer]

    def append(
        self, key: Float[Tensor, "b h t e"], value: Float[Tensor, "b h t e"]
    ) -> tuple[Float[Tensor, "b h k e"], Float[Tensor, "b h k e"]]:
        """Append `t` positions, and return all, the new ones included."""
        start, stop = self._cache.length, self._cache.length + key.shape[2]
        self._pairs[:, :, :, start:stop] = torch.stack([key, value])
        keys, values = self._pairs[:, :, :, :stop].unbind(0)
        return keys, values


class KeyValueCache:
    """Keys and values of all layers for up to `max_tokens` positions.

    Args:
        config: of the transformer that fills it.
        batch: number of sequences.
        max_tokens: capacity in positions.
        dtype: of the stored values.
        device: where it lies.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, 2, batch, config.num_heads, max_tokens, config.head_size)
        # A layer's keys and values are adjacent, so that one copy stores both.
        self.pairs: Float[Tensor, "l 2 b h k e"] = torch.zeros(shape, dtype=dtype, device=device)
        self.keys: Float[Tensor, "l b h k e"] = self.pairs[:, 0]
        self.values: Float[Tensor, "l b h k e"] = self.pairs[:, 1]
        self.length = 0
        self._config = config
        self._num_text = torch.zeros(batch, dtype=torch.int64, device=device)
        self._is_in_text = torch.ones(batch, dtype=torch.bool, device=device)
        self._regions: list[Regions] = []

    def patterns_with(self, tokens: Int[Tensor, "b t"]) -> list[Regions | LayerGrid | None]:
        """Return what each layer's sparse attention sees with new tokens; None if attention is dense.

        The pivots are those of evaluation, so that cached and uncached results agree.
        """
        if self._config.attention_pattern == "dense":
            return [None] * self._config.num_layers
        if self._config.attention_pattern == "grid":
            return [*layer_grids(self._config.grid)]
        config = self._config.three_region
        if self._is_in_text.any():
            num_text = self.length + count_text(tokens, config.image_start_token)
            self._num_text = num_text.where(self._is_in_text, self._num_text)
            self._is_in_text &= (tokens != config.image_start_token).all(1)
            seeds = torch.zeros_like(self._num_text)
            self._regions = draw_regions(
                self._num_text, seeds, self.max_tokens, self._config.num_layers, config
            )
        return [*self._regions]

    @property
    def max_tokens(self) -> int:
        """Capacity in positions."""
        return self.keys.shape[3]

    def layer(self, index: int) -> LayerCache:
        """Return the view of one layer."""
        return LayerCache(self, index)
