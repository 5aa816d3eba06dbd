"""Section 2.4: Sandwich-LN, PB-Relax and the shrunken embedding gradient do what the paper says."""

import pytest
import torch
from torch.nn import functional as F

from cogview.transformer.attention import fused_attention, plain_attention, relaxed_attention
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import TransformerConfig
from cogview.transformer.embedding import shrink_gradient
from cogview.transformer.normalization import RelaxedLayerNorm


def heads(t: int = 9, k: int = 9, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, t, 8, generator=generator) * scale
    key = torch.randn(2, 3, k, 8, generator=generator) * scale
    value = torch.randn(2, 3, k, 8, generator=generator)
    return query, key, value


def row_by_row(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    t, k = scores.shape[-2:]
    for row in range(t):
        scores[..., row, k - t + row + 1 :] = -torch.inf
    return scores.softmax(-1) @ value


@pytest.mark.parametrize(("t", "k"), [(9, 9), (1, 9), (4, 9)])
@pytest.mark.parametrize("attention", [relaxed_attention, fused_attention, plain_attention])
def test_attention_is_causal_softmax_attention(attention, t, k):
    query, key, value = heads(t, k)
    assert torch.allclose(attention(query, key, value), row_by_row(query, key, value), atol=1e-6)


def test_relaxed_attention_equals_fused_for_large_scores():
    query, key, value = heads(scale=30.0)
    assert torch.allclose(relaxed_attention(query, key, value), fused_attention(query, key, value), atol=1e-4)


def test_relaxed_scores_stay_in_fp16_where_plain_ones_overflow():
    query, key, value = (x.half() for x in heads(scale=180.0))
    limit = torch.finfo(torch.float16).max
    assert (query.double() @ key.double().transpose(-2, -1)).abs().max() > limit
    assert not plain_attention(query, key, value).isfinite().all()
    assert (query @ (key / (32 * 8**0.5)).transpose(-2, -1)).isfinite().all()
    relaxed = relaxed_attention(query, key, value).double()
    exact = row_by_row(query.double(), key.double(), value.double())
    # fp16 keeps 11 bits of a score that is then multiplied by alpha, so two close scores may change places.
    assert relaxed.isfinite().all()
    assert ((relaxed - exact).abs() < 0.05).double().mean() > 0.9


def test_query_far_below_the_largest_score_of_its_head_is_not_lost_in_fp16():
    query, key, value = (x.half() for x in heads(scale=1.0))
    query[:, :, 3] *= 3000
    key *= 300
    assert relaxed_attention(query, key, value).isfinite().all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, 1e30])
def test_relaxed_norm_is_layer_norm_whatever_the_scale(scale):
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = RelaxedLayerNorm(64, "token", 1e-5).double()
    expected = F.layer_norm(x, (64,), eps=0.0)
    assert torch.allclose(norm(x * scale), expected, atol=1e-5)


def test_epsilon_rule_holds_for_one_outlier_in_a_wide_row():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2560, generator=generator, dtype=torch.float64)
    x[:, 7] = 1e4
    exact = F.layer_norm(x, (2560,), eps=0.0)
    by_token = RelaxedLayerNorm(2560, "token", 1e-5).double()(x)
    undivided = F.layer_norm(x / 1e4, (2560,), eps=1e-5)
    assert ((by_token - exact).abs().max() / exact.abs().max()).item() < 1e-5
    assert ((undivided - exact).abs().max() / exact.abs().max()).item() == pytest.approx(0.013, abs=0.001)


def test_token_scope_does_not_couple_tokens_and_tensor_scope_does():
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) * 1e-2
    louder = x.clone()
    louder[2] *= 1e4
    token, tensor = RelaxedLayerNorm(16, "token", 1e-5), RelaxedLayerNorm(16, "tensor", 1e-5)
    assert torch.equal(token(x)[:2], token(louder)[:2])
    assert not torch.allclose(tensor(x)[:2], tensor(louder)[:2], atol=1e-3)


def test_relaxed_norm_survives_fp16_where_squares_overflow():
    x = torch.full((1, 64), 30_000.0, dtype=torch.float16)
    x[0, ::2] *= -1
    norm = RelaxedLayerNorm(64, "token", 1e-5).half()
    assert (x * x).isinf().all()
    assert torch.allclose(norm(x).abs(), torch.ones(1, 64, dtype=torch.float16), atol=1e-2)


def test_row_of_zeros_stays_zeros():
    assert (RelaxedLayerNorm(8, "token", 1e-5)(torch.zeros(2, 8)) == 0).all()


def test_shrunken_gradient_leaves_the_value():
    x = torch.randn(7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = shrink_gradient(x, 0.1)
    y.sum().backward()
    assert torch.allclose(y, x)
    assert torch.allclose(x.grad, torch.full((7,), 0.1))


def test_sandwich_bounds_what_a_branch_adds():
    config = TransformerConfig(num_layers=1, hidden_size=32, num_heads=4)
    torch.manual_seed(0)
    block = SandwichBlock(config)
    x = torch.randn(1, 6, 32)
    with torch.no_grad():
        block.attention.output.weight.mul_(1e6)
        block.mlp.output.weight.mul_(1e6)
        added = block(x) - x
    # Two branches, each with unit variance after its LayerNorm: at most 2 sqrt(d) in any entry.
    assert added.abs().max() <= 2 * 32**0.5
    assert added.std() < 2.1
