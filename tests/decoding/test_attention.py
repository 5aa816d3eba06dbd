"""Attention by sums of rows is the fused kernel's, at every length and where rows have unlike lengths."""

import numpy as np
import pytest
import torch

from cogview.decoding.attention_fused import attend_by_fused_kernel
from cogview.decoding.attention_layout import plan_layout
from cogview.decoding.attention_tables import attend_to_tables
from cogview.decoding.pool import PagePool, Row
from cogview.transformer.config import TransformerConfig

CONFIG = TransformerConfig(num_layers=2, hidden_size=120, num_heads=3, vocabulary_size=16, num_positions=400)
CAPACITY = 300


def filled(lengths: list[int], dtype: torch.dtype = torch.float32) -> tuple[PagePool, list[Row]]:
    """Return rows that hold so many random tokens."""
    pool = PagePool(CONFIG, 1, dtype)
    rows = [Row(pool, CAPACITY) for _ in lengths]
    for row, length in zip(rows, lengths, strict=True):
        row.reserve()
        row.length = length
    generator = torch.Generator().manual_seed(sum(lengths))
    pool.keys.copy_(torch.randn(pool.keys.shape, generator=generator))
    pool.values.copy_(torch.randn(pool.values.shape, generator=generator))
    return pool, rows


def random_heads(num: int, seed: int = 0) -> torch.Tensor:
    heads = torch.randn(num, 3, CONFIG.hidden_size, generator=torch.Generator().manual_seed(seed))
    heads[:, 0] /= CONFIG.head_size**0.5
    return heads.flatten(1)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
@pytest.mark.parametrize("num_tokens", [0, 1, 126, 127, 128, 129, 255, 256, 290])
@torch.inference_mode()
def test_sums_of_rows_are_the_fused_kernel_s_attention(
    num_tokens: int, dtype: torch.dtype, error: float
) -> None:
    lengths, nums = [num_tokens, 7, num_tokens // 2], [3, 1, 9]
    pool, rows = filled(lengths, dtype)
    exact, others = filled(lengths)
    heads = random_heads(sum(nums))
    by_sums = attend_to_tables(pool, plan_layout(CONFIG, rows, nums, pool.keys.device))
    fused = attend_by_fused_kernel(exact, plan_layout(CONFIG, others, nums, pool.keys.device))
    for layer in range(CONFIG.num_layers):
        found, wanted = by_sums(layer, heads), fused(layer, heads)
        assert found.shape == wanted.shape == (sum(nums), CONFIG.hidden_size)
        assert (found - wanted).abs().max() < error
        assert np.ptp(wanted.numpy()) > 0.1


@torch.inference_mode()
def test_a_row_attends_to_its_own_tokens_only() -> None:
    lengths, nums = [140, 3, 200], [2, 5, 1]
    pool, rows = filled(lengths)
    heads = random_heads(sum(nums))
    together = attend_to_tables(pool, plan_layout(CONFIG, rows, nums, pool.keys.device))(1, heads)
    start = 0
    for row, num in zip(rows, nums, strict=True):
        alone = attend_to_tables(pool, plan_layout(CONFIG, [row], [num], pool.keys.device))
        assert torch.equal(alone(1, heads[start : start + num]), together[start : start + num])
        start += num


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.inference_mode()
def test_scores_too_large_for_an_exponential_or_for_fp16_do_no_harm(dtype: torch.dtype) -> None:
    pool = PagePool(CONFIG, 1, dtype)
    row = Row(pool, CAPACITY)
    row.reserve()
    ones = torch.ones(1, CONFIG.hidden_size)
    attend = attend_to_tables(pool, plan_layout(CONFIG, [row], [1], pool.keys.device))
    attended = attend(0, torch.cat([100 * ones, 100 * ones, ones], dim=1))
    assert torch.equal(attended.float(), ones)


@torch.inference_mode()
def test_what_a_freed_row_left_behind_is_not_seen() -> None:
    """Not even multiplied by zero: what is not a number would stay so."""
    pool = PagePool(CONFIG, 3)
    left = Row(pool, CAPACITY)
    left.reserve()
    pool.keys.fill_(torch.nan)
    pool.values.fill_(torch.nan)
    left.free()
    row = Row(pool, CAPACITY)
    row.reserve()
    attended = attend_to_tables(pool, plan_layout(CONFIG, [row], [2], pool.keys.device))(0, random_heads(2))
    assert torch.isfinite(attended).all()
