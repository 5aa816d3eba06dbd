"""Memory of drawing: weights, prepared weights and caches.

On a CPU it is the peak of the whole process. Pictures are decoded after drawing, one per core at a time; the decoder's
weights are included if the model is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from cogview.decoding.config import CacheName
from cogview.decoding.linear import can_pack
from cogview.decoding.memory import code_bytes, decoding_bytes, pass_bytes, rows_bytes
from cogview.decoding.pool import cache_dtype
from cogview.planning.devices import Device
from cogview.sequence.template import TextToImageTemplate
from cogview.transformer.config import TransformerConfig

_PROCESS_BYTES = 272 * 2**20
"""Memory of a CPU process before loading, and of its libraries at work (torch 2.13)."""


@dataclass(frozen=True, kw_only=True)
class GenerationMemory:
    """Memory of drawing for one text on one device, in bytes.

    Args:
        fixed: by kind, independent of the number of pictures: unprepared "weights", "prepared_weights" in the kernels'
            layout, on a CPU "process", "code" and "transient", and "image_tokenizer" if known.
        cache_per_picture: keys and values of a picture, of two rows with guidance.
        transient_per_picture: of a step, per picture.
        is_decoded_here: whether the CPU decodes pictures in the same memory.
    """

    fixed: Mapping[str, float]
    cache_per_picture: float
    transient_per_picture: float
    is_decoded_here: bool = False

    def total(self, num_pictures: int) -> float:
        """Return the bytes for this many pictures at once."""
        decoding = decoding_bytes(num_pictures) if self.is_decoded_here else 0
        drawing = num_pictures * (self.cache_per_picture + self.transient_per_picture)
        return sum(self.fixed.values()) + drawing + decoding

    def largest_batch(self, limit_bytes: float) -> int:
        """Return the most pictures at once that fit; 0 if none does."""
        least = int((limit_bytes - self.total(0)) // (self.cache_per_picture + self.transient_per_picture))
        return next((num for num in range(max(least, 0), 0, -1) if self.total(num) <= limit_bytes), 0)


def generation_memory(
    config: TransformerConfig,
    template: TextToImageTemplate,
    device: Device,
    dtype: torch.dtype,
    *,
    guided: bool = False,
    cache: CacheName = "auto",
    image_tokenizer_bytes: int = 0,
) -> GenerationMemory:
    """Return the memory of drawing.

    Args:
        config: of the transformer.
        template: of its sequences.
        device: to draw on.
        dtype: of the weights.
        guided: with guidance, where each picture takes two rows.
        cache: dtype of keys and values.
        image_tokenizer_bytes: of its weights in memory, if known.
    """
    d, rows = config.hidden_size, 2 if guided else 1
    num_codes = len(template.vocabulary.image_codes)
    matrices = config.num_layers * (4 + 2 * config.mlp_factor) * d * d
    tables = (1 if config.head == "tied" else 2) * config.vocabulary_size * d
    max_tokens = template.max_prefix_tokens + template.num_codes_per_image - 1
    held = cache_dtype(config, dtype, "cpu" if device.is_cpu else "cuda", cache)
    is_int8 = dtype == torch.int8
    outside = config.num_parameters - matrices - tables
    fixed: dict[str, float] = {
        # The table and a head of its own stay as stored; exported models have float16.
        "weights": tables * (1 if is_int8 else 2) + 4 * outside,
        "prepared_weights": matrices * dtype.itemsize,
        "image_tokenizer": image_tokenizer_bytes,
    }
    if not is_int8 and (not device.is_cpu or can_pack("cpu", dtype)):
        fixed["prepared_weights"] += num_codes * d * dtype.itemsize
    one = pass_bytes(config, num_codes, 1, 1, max_tokens)
    if device.is_cpu:
        fixed |= {
            "process": _PROCESS_BYTES,
            "code": code_bytes(dtype),
            "transient": one,
        }
        many = 1000
        per_row = (pass_bytes(config, num_codes, many, 1, max_tokens) - one) / many
    else:
        per_row = one / 128
    return GenerationMemory(
        fixed=MappingProxyType({kind: float(num_bytes) for kind, num_bytes in fixed.items() if num_bytes}),
        cache_per_picture=float(rows * rows_bytes(config, [max_tokens], held)),
        transient_per_picture=float(rows * per_row),
        is_decoded_here=device.is_cpu,
    )
