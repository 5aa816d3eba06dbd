"""The memory of drawing, by the sizes of what `cogview.generation` holds: weights, prepared weights, caches.

Pictures are decoded one at a time after they are drawn, which takes less and is not counted, nor is reading the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from cogview.decoding.linear import can_pack
from cogview.decoding.pool import PAGE, num_pages_for
from cogview.planning.devices import Device
from cogview.sequence.template import TextToImageTemplate
from cogview.transformer.config import TransformerConfig

# What a CPU process holds beyond its tensors: buffers of the libraries, measured by `bench/plan.py`.
_PROCESS_BYTES = 9 * 2**24
# Logits, what is sorted of them and its order, of one row: bytes for each code that may be drawn.
_BYTES_A_LOGIT = 40


@dataclass(frozen=True, kw_only=True)
class GenerationMemory:
    """What drawing for one text needs on one device, in bytes.

    Args:
        fixed: by kind, whatever the number of pictures: "weights", "prepared_weights" in the kernels' layout, and on a
            CPU "process".
        cache_per_picture: keys and values of a picture, of two rows with guidance.
        transient_per_picture: of a step.
    """

    fixed: Mapping[str, float]
    cache_per_picture: float
    transient_per_picture: float

    def total(self, num_pictures: int) -> float:
        """Return all that so many pictures at once need."""
        return sum(self.fixed.values()) + num_pictures * (self.cache_per_picture + self.transient_per_picture)

    def largest_batch(self, limit_bytes: float) -> int:
        """Return the most pictures at once that fit; 0 if not even one does."""
        room = limit_bytes - sum(self.fixed.values())
        return max(0, int(room // (self.cache_per_picture + self.transient_per_picture)))


def generation_memory(
    config: TransformerConfig,
    template: TextToImageTemplate,
    device: Device,
    dtype: torch.dtype,
    *,
    guided: bool = False,
) -> GenerationMemory:
    """Tell what drawing needs.

    Args:
        config: of the transformer.
        template: of its sequences.
        device: where.
        dtype: of the weights.
        guided: with guidance, for which each picture is computed twice.
    """
    d, rows = config.hidden_size, 2 if guided else 1
    num_codes = len(template.vocabulary.image_codes)
    matrices = config.num_layers * (4 + 2 * config.mlp_factor) * d * d + num_codes * d
    queries_keys_values = config.num_layers * 3 * d * d  # copied in any case, with the query divided
    packs = device.is_cpu and can_pack("cpu", dtype)
    max_tokens = template.max_prefix_tokens + template.num_codes_per_image - 1
    fixed: dict[str, float] = {
        "weights": config.num_parameters * dtype.itemsize,
        "prepared_weights": (matrices if packs else queries_keys_values) * dtype.itemsize,
    }
    if device.is_cpu:
        fixed["process"] = _PROCESS_BYTES
    transient = num_codes * _BYTES_A_LOGIT + 4 * (8 + config.mlp_factor) * d
    if device.is_cpu:  # which rows of the tables are weighed by what, and the scores
        transient += 12 * num_pages_for(config, max_tokens) * d + 16 * max_tokens * config.num_heads
    return GenerationMemory(
        fixed=MappingProxyType({kind: float(num_bytes) for kind, num_bytes in fixed.items()}),
        cache_per_picture=rows * _cache_bytes(config, max_tokens, device, dtype),
        transient_per_picture=float(rows * transient),
    )


def _cache_bytes(config: TransformerConfig, max_tokens: int, device: Device, dtype: torch.dtype) -> float:
    """Return the bytes of a sequence's keys and values, which lie in whole pages."""
    if device.is_cpu and config.attention_pattern == "three_region":
        dtype = torch.float32
    num_places = num_pages_for(config, max_tokens) * PAGE
    return float(2 * config.num_layers * config.hidden_size * num_places * dtype.itemsize)
