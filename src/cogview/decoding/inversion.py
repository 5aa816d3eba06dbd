"""Sampling by inversion of the cumulative distribution, with seeded random numbers per row."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from cogview.decoding.config import SamplingConfig


def seeded_uniforms(seeds: Sequence[int], num: int) -> Float64[Tensor, "b n"]:
    """Return `num` numbers in [0, 1) for each seed, independent of the batch.

    Args:
        seeds: not negative.
        num: one for each code of a picture.
    """
    rows = [np.random.Generator(np.random.PCG64(seed)).random(num) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def sample(
    logits: Shaped[Tensor, "b v"], config: SamplingConfig, uniforms: Float64[Tensor, "b"]
) -> Int64[Tensor, "b"]:
    """Sample one column of each row of `logits`.

    The sampled column is the one whose stretch of the cumulative distribution contains the row's number. Only the
    `top_k` columns are sorted.

    Args:
        logits: of the legal codes.
        config: temperature, top-k and top-p.
        uniforms: a number in [0, 1) for each row.
    """
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    num_columns = logits.shape[1]
    num_kept = min(config.top_k or num_columns, num_columns)
    if num_kept == num_columns and config.top_p == 1:
        return _invert(_cumulative(logits, config.temperature), uniforms, last=num_columns - 1)
    kept, columns = logits.topk(num_kept)  # most probable first, so top-p keeps a beginning of it
    cumulative = _cumulative(kept, config.temperature)
    last: int | Int64[Tensor, "b 1"] = num_kept - 1
    if config.top_p < 1:
        reached = cumulative >= config.top_p * cumulative[:, -1:]
        last = reached.int().argmax(dim=-1, keepdim=True)  # the first that reaches it is still kept
    choice = _invert(cumulative, uniforms, last)
    return columns.gather(1, choice[:, None]).squeeze(1)


def _cumulative(logits: Shaped[Tensor, "b k"], temperature: float) -> Float64[Tensor, "b k"]:
    """Return cumulative probabilities, summed in double precision so that rare columns keep their share."""
    probabilities: Float32[Tensor, "b k"] = torch.softmax(logits.float() / temperature, dim=-1)
    return probabilities.cumsum(dim=-1, dtype=torch.float64)


def _invert(
    cumulative: Float64[Tensor, "b k"], uniforms: Float64[Tensor, "b"], last: int | Int64[Tensor, "b 1"]
) -> Int64[Tensor, "b"]:
    """Return the column of each row's number, up to `last`."""
    total = cumulative[:, last, None] if isinstance(last, int) else cumulative.gather(1, last)
    choice = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    # Rounding may put a number close to 1 onto the total itself, beyond the last column.
    return choice.clamp(max=last).squeeze(1)
