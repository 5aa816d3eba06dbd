"""Passes of the transformer with given tokens, in pieces of any size."""

from collections.abc import Sequence

import numpy as np
import torch

from cogview.decoding.attention_fused import attend_by_fused_kernel
from cogview.decoding.attention_layout import plan_layout
from cogview.decoding.attention_tables import attend_to_tables
from cogview.decoding.engine import Runner
from cogview.decoding.forward import Part, extend
from cogview.decoding.pool import PagePool, Row, cache_dtype


def new_rows(runner: Runner, num: int, max_tokens: int, num_text: int = 0) -> tuple[PagePool, list[Row]]:
    """Return rows of a pool as the engine makes it."""
    weights = runner.engine.weights
    dtype = cache_dtype(weights.config, weights.dtype, weights.device.type)
    pool = PagePool(weights.config, 1, dtype, weights.device)
    rows = [Row(pool, max_tokens, num_text) for _ in range(num)]
    for row in rows:
        row.reserve()
    return pool, rows


def run(
    runner: Runner,
    pool: PagePool,
    rows: Sequence[Row],
    tokens: torch.Tensor,
    positions: torch.Tensor,
    *,
    is_fused: bool = False,
) -> torch.Tensor:
    """Put tokens [b t] behind those of rows and return their states [b t d]."""
    num_rows, num = tokens.shape
    places = plan_layout(pool.config, rows, [num] * num_rows, pool.keys.device)
    attend = (attend_by_fused_kernel if is_fused else attend_to_tables)(pool, places)
    parts = [Part(variant=runner.variant, start=0, stop=num_rows * num)]
    every = np.arange(num_rows * num)
    states = extend(runner.engine.weights, parts, tokens.flatten(), positions.flatten(), attend, every)
    for row in rows:
        row.length += num
    return states.view(num_rows, num, -1)


def logits_in_pieces(
    runner: Runner,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    legal: range,
    sizes: Sequence[int],
    *,
    num_text: int = 0,
    is_fused: bool = False,
) -> torch.Tensor:
    """Return the logits after every token, of passes that run so many tokens of each row."""
    pool, rows = new_rows(runner, len(tokens), tokens.shape[1], num_text)
    states, start = [], 0
    for size in sizes:
        some = slice(start, start + size)
        states.append(run(runner, pool, rows, tokens[:, some], positions[:, some], is_fused=is_fused))
        start += size
    assert start == tokens.shape[1], "the pieces are all tokens"
    hidden = torch.cat(states, dim=1)
    return runner.variant.head(legal)(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
