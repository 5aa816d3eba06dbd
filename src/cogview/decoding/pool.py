"""Paged key/value pool with shared prefixes.

A page holds the keys and values of `PAGE` places of one row, of all layers. Values are rows of `e` channels; keys are
stored transposed, a row of `PAGE` entries for each channel.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cogview.decoding.config import CacheName
from cogview.errors import UsageError
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig

PAGE = 128

MAX_NEW_CODES = 64
"""Maximum of new codes of a row in a pass, with three-region attention."""


def num_ring_entries(regions: ThreeRegionConfig) -> int:
    """Return the ring size of three-region attention: the longest window and a pass's new codes."""
    return regions.block_tokens * regions.key_window_blocks + MAX_NEW_CODES


def num_pages_for(config: TransformerConfig, max_tokens: int) -> int:
    """Return the number of pages that a row needs."""
    if config.attention_pattern == "grid":  # entries of codes may be column by column, so all are reserved
        max_tokens = max(max_tokens, config.grid.stop_place)
    if config.attention_pattern != "three_region":
        return -(-max_tokens // PAGE)
    regions = config.three_region
    return -(-(regions.num_text_and_pivot_tokens + 1 + num_ring_entries(regions)) // PAGE)


def cache_dtype(
    config: TransformerConfig, dtype: torch.dtype, device_type: str, requested: CacheName = "auto"
) -> torch.dtype:
    """Choose the dtype of keys and values.

    Args:
        config: of the transformer.
        dtype: of the linear maps.
        device_type: "cpu" or "cuda".
        requested: by the user.

    Raises:
        UsageError: float16 was requested for three-region attention on a CPU.
    """
    is_whole = dtype in (torch.float32, torch.int8)
    if device_type == "cpu" and config.attention_pattern == "three_region":
        if requested == "float16":
            raise UsageError(
                "three_region attention needs a float32 cache on a CPU: leave the cache's dtype out"
            )
        return torch.float32
    if requested != "auto":
        return torch.float32 if requested == "float32" else torch.float16
    if device_type == "cpu":
        # bf16 would round scores to three digits.
        return torch.float32 if is_whole else torch.float16
    return torch.float32 if dtype == torch.int8 else dtype


def page_bytes(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Return the bytes of a page of keys and values of all layers."""
    return 2 * config.num_layers * config.hidden_size * PAGE * dtype.itemsize


class PagePool:
    """Keys and values of all rows.

    Memory of pages that no row has used yet is reserved but not touched.

    Args:
        config: of the transformer.
        num_pages: initial number; the pool grows as needed.
        dtype: of keys and values.
        device: where they lie.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_pages: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.keys, self.values = self._empty(num_pages, dtype, device)
        self._free = list(range(num_pages))[::-1]
        self._num_holders = [0] * num_pages

    def _empty(self, num_pages: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
        config = self.config
        start = (config.num_layers, num_pages, config.num_heads)
        keys: Float[Tensor, "l n h e p"] = torch.empty(
            *start, config.head_size, PAGE, dtype=dtype, device=device
        )
        values: Float[Tensor, "l n h p e"] = torch.empty(
            *start, PAGE, config.head_size, dtype=dtype, device=device
        )
        return keys, values

    @property
    def num_pages(self) -> int:
        """Number of pages, free or not."""
        return len(self._num_holders)

    @property
    def num_free(self) -> int:
        """Number of free pages."""
        return len(self._free)

    @property
    def page_bytes(self) -> int:
        """Bytes of a page."""
        return page_bytes(self.config, self.keys.dtype)

    @property
    def num_bytes(self) -> int:
        """Bytes of all pages."""
        return self.num_pages * self.page_bytes

    def allocate(self, num: int) -> list[int]:
        """Allocate zeroed pages, each with one reference; grow if needed.

        Zeroed, since entries after a row's end are multiplied by zero, which does not remove NaN.
        """
        if num > len(self._free):
            self._grow(max(num - len(self._free), self.num_pages // 2))
        pages = [self._free.pop() for _ in range(num)]
        for page in pages:
            self._num_holders[page] = 1
            self.keys[:, page] = 0
            self.values[:, page] = 0
        return pages

    def share(self, page: int) -> None:
        """Add a reference to a page."""
        self._num_holders[page] += 1

    def free(self, pages: Sequence[int]) -> None:
        """Drop a reference to each page."""
        for page in pages:
            self._num_holders[page] -= 1
            if not self._num_holders[page]:
                self._free.append(page)

    def copy(self, source: int, target: int, first: int, stop: int) -> None:
        """Copy some entries of a page to another."""
        self.keys[:, target, :, :, first:stop] = self.keys[:, source, :, :, first:stop]
        self.values[:, target, :, first:stop] = self.values[:, source, :, first:stop]

    def _grow(self, num: int) -> None:
        num_before, before = self.num_pages, (self.keys, self.values)
        after = self._empty(num_before + num, self.keys.dtype, self.keys.device)
        for old, new in zip(before, after, strict=True):
            new[:, :num_before] = old
        self.keys, self.values = after
        self._free = [*range(num_before, num_before + num)][::-1] + self._free
        self._num_holders += [0] * num


class Row:
    """Sequence in a pool.

    Args:
        pool: that holds it.
        max_tokens: maximum length.
        num_text: tokens up to the one that begins a picture; needed by three-region attention.

    Attributes:
        length: number of stored tokens; decrease it to cut the row back.
    """

    def __init__(self, pool: PagePool, max_tokens: int, num_text: int = 0) -> None:
        self._pool = pool
        self.max_tokens = max_tokens
        self.num_text = num_text
        self.num_pages = num_pages_for(pool.config, max_tokens)
        self.length = 0
        self.pages: list[int] = []

    def reserve(self) -> None:
        """Allocate all pages that the row may need."""
        self.pages += self._pool.allocate(self.num_pages - len(self.pages))

    def share_prefix(self, other: "Row", num_tokens: int) -> None:
        """Start with the first tokens of another row: share whole pages, copy the rest.

        Args:
            other: row to start from.
            num_tokens: that neither row changes any more; only text with three-region attention, and no part of a
                picture with attention by a grid.
        """
        assert not self.pages, "an empty row begins"
        num_shared, rest = divmod(num_tokens, PAGE)
        self.pages = other.pages[:num_shared]
        for page in self.pages:
            self._pool.share(page)
        self.reserve()
        if rest:
            self._pool.copy(other.pages[num_shared], self.pages[num_shared], 0, rest)
        self.length = num_tokens

    def free(self) -> None:
        """Give all pages back."""
        self._pool.free(self.pages)
        self.pages, self.length = [], 0
