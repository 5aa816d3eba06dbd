"""A static key/value cache: allocated once, sliced to its length."""

import torch
from jaxtyping import Float
from torch import Tensor

from cogview.transformer.config import TransformerConfig


class LayerCache:
    """Keys and values of one layer; a view of the whole cache."""

    def __init__(self, cache: "KeyValueCache", layer: int) -> None:
        self._cache = cache
        self._pairs = cache.pairs[layer]

    def append(
        self, key: Float[Tensor, "b h t e"], value: Float[Tensor, "b h t e"]
    ) -> tuple[Float[Tensor, "b h k e"], Float[Tensor, "b h k e"]]:
        """Store `t` new positions behind those held and return all of them, the new ones included."""
        start, stop = self._cache.length, self._cache.length + key.shape[2]
        self._pairs[:, :, :, start:stop] = torch.stack([key, value])
        keys, values = self._pairs[:, :, :, :stop].unbind(0)
        return keys, values


class KeyValueCache:
    """Keys and values of all layers for up to `max_tokens` positions.

    Args:
        config: of the transformer that fills it.
        batch: sequences.
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
        # A layer's keys and values lie side by side, so that one copy can put away both.
        self.pairs: Float[Tensor, "l 2 b h k e"] = torch.zeros(shape, dtype=dtype, device=device)
        self.keys: Float[Tensor, "l b h k e"] = self.pairs[:, 0]
        self.values: Float[Tensor, "l b h k e"] = self.pairs[:, 1]
        self.length = 0

    @property
    def max_tokens(self) -> int:
        """Capacity in positions."""
        return self.keys.shape[3]

    def layer(self, index: int) -> LayerCache:
        """Return the view that one layer appends to."""
        return LayerCache(self, index)
