"""Gumbel numbers draw from the same distribution, and depend on their seed, place and token alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inversion import CONFIGS, different_rows, exact_distribution

from cogview.decoding.config import SamplingConfig
from cogview.decoding.gumbel import (
    Draw,
    _hashed_on_cpu,
    draw_by_gumbel,
    draw_by_sorting,
    gumbel_numbers,
    key_of,
)
from cogview.transformer.three_region import hash_bits

NUM_DRAWS = 20_000


def keys_of(*seeds: int) -> torch.Tensor:
    return torch.tensor([key_of(seed) for seed in seeds])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.slow
def test_codes_are_drawn_as_often_as_they_are_probable(config: SamplingConfig, row: int) -> None:
    logits = different_rows(5)[row]
    drawn = draw_by_gumbel(
        logits.expand(NUM_DRAWS, -1),
        [config] * NUM_DRAWS,
        keys_of(7).expand(NUM_DRAWS, -1),
        torch.arange(NUM_DRAWS),
    )
    shares = np.bincount(drawn.tokens, minlength=len(logits)) / NUM_DRAWS
    wanted = exact_distribution(logits, config)
    assert not shares[wanted == 0].any()
    assert np.abs(shares - wanted).max() < 4 * np.sqrt(0.25 / NUM_DRAWS)
    # In all, as near as chance lets them be.
    kept = wanted * NUM_DRAWS > 5
    chi_square = (NUM_DRAWS * (shares - wanted)[kept] ** 2 / wanted[kept]).sum()
    assert chi_square < kept.sum() + 5 * np.sqrt(2 * kept.sum())
    probability = torch.softmax(logits / config.temperature, dim=0)
    assert torch.allclose(drawn.confidence, probability[drawn.tokens], rtol=1e-4)


def test_a_row_draws_the_same_in_any_company() -> None:
    """Ties between logits included, and configs of all kinds side by side."""
    logits = torch.randn(40, 2048, generator=torch.Generator().manual_seed(0)).mul(3).mul(4).round().div(4)
    configs = [
        [*CONFIGS, SamplingConfig(temperature=0.0), SamplingConfig(top_k=200)][i % 8] for i in range(40)
    ]
    keys, places = keys_of(*range(40)), torch.arange(40) * 3
    together = draw_by_gumbel(logits, configs, keys, places)
    for start, stop in ((0, 1), (13, 14), (5, 9), (0, 39)):
        some = slice(start, stop)
        alone = draw_by_gumbel(logits[some], configs[some], keys[some], places[some])
        assert torch.equal(alone.tokens, together.tokens[some])
        assert torch.equal(alone.confidence, together.confidence[some])


def test_the_most_probable_token_is_taken_at_temperature_0() -> None:
    logits = different_rows(30)
    drawn = draw_by_gumbel(
        logits, [SamplingConfig(temperature=0.0)] * 30, keys_of(*range(30)), torch.arange(30)
    )
    assert torch.equal(drawn.tokens, logits.argmax(dim=1))


def test_seeds_of_any_size_places_and_tokens_have_numbers_of_their_own() -> None:
    seeds = [0, 1, 2, 2**31, 2**32, 2**63, 2**64, 2**70, 2**70 + 1]
    numbers = gumbel_numbers(
        keys_of(*seeds)[:, None, None], torch.arange(50)[None, :, None], torch.arange(100)[None, None]
    )
    assert numbers.shape == (len(seeds), 50, 100)
    # Two of 32 bits may be the same by chance.
    assert len(np.unique(numbers)) > numbers.numel() - 5


def test_numbers_are_independent_of_seed_place_and_token() -> None:
    """Of neighbours in each direction, and in their distribution as a whole."""
    numbers = gumbel_numbers(
        keys_of(*range(40))[:, None, None], torch.arange(64)[None, :, None], torch.arange(128)[None, None]
    ).numpy()
    assert numbers.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert numbers.var() == pytest.approx(np.pi**2 / 6, abs=0.03)
    levels = np.exp(-np.exp(-numbers))  # uniform again
    counts = np.histogram(levels, bins=64, range=(0, 1))[0]
    expected = levels.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 64 + 5 * np.sqrt(128)
    for axis in range(3):
        size = levels.shape[axis]
        one, other = (levels.take(range(start, size - 1 + start), axis=axis).ravel() for start in (0, 1))
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(one.size)


def test_a_gpu_and_a_cpu_have_the_same_numbers() -> None:
    """Numbers of 32 bits are multiplied on a CPU, of 64 bits elsewhere."""
    rng = np.random.default_rng(0)
    tokens, first, second = rng.integers(0, [[2**14], [2**32], [2**32]], size=(3, 1000))
    hashed = _hashed_on_cpu(tokens, first, second)
    x = (torch.from_numpy(tokens) * 0x9E3779B1 + torch.from_numpy(first)) & 0xFFFFFFFF
    assert np.array_equal(hash_bits(hash_bits(x) ^ torch.from_numpy(second)).numpy(), hashed)


def test_of_equal_logits_the_lower_tokens_are_kept() -> None:
    """At the end of top-k, and of top-p: the same on every device, whichever sorts."""
    logits = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]).expand(400, -1)
    for config, kept in (
        (SamplingConfig(top_k=2), {1, 3}),
        (SamplingConfig(top_k=5), {0, 1, 2, 3, 6}),
        (SamplingConfig(top_k=4, top_p=0.5), {1, 3}),
        (SamplingConfig(top_p=0.3), {1, 3}),
    ):
        drawn = draw_by_gumbel(logits, [config] * 400, keys_of(1).expand(400, -1), torch.arange(400))
        assert set(drawn.tokens.tolist()) == kept, config


def by_sorting(
    logits: torch.Tensor, configs: list[SamplingConfig], keys: torch.Tensor, places: torch.Tensor
) -> Draw:
    num = logits.shape[1]
    top_k = torch.tensor([min(config.top_k or num, num) for config in configs])
    temperature, top_p = (
        torch.tensor([getattr(config, name) for config in configs], dtype=torch.float64)
        for name in ("temperature", "top_p")
    )
    is_cut = bool(((top_k < num) | (top_p < 1)).any())
    return draw_by_sorting(logits, temperature, top_k, top_p, keys, places, is_cut=is_cut)


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_sorting_draws_what_looking_draws(data: st.DataObject) -> None:
    """Ties, one token that has all, top-p next to 1 and settings of all kinds side by side included."""
    num_tokens = data.draw(st.sampled_from([1, 2, 5, 33, 300]))
    seeds = data.draw(st.lists(st.integers(0, 2**70), min_size=1, max_size=6))
    near_one = [1 - 2.0**-power for power in (1, 2, 10, 24, 25, 40, 53)]
    configs = [
        SamplingConfig(
            temperature=data.draw(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 1.7, 50.0])),
            top_k=data.draw(st.sampled_from([None, 1, 2, 3, 20, 299, 10_000])),
            top_p=data.draw(st.sampled_from([1.0, 1e-6, *near_one]) | st.floats(1e-6, 1)),
        )
        for _ in seeds
    ]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    scale = data.draw(st.sampled_from([0.0, 0.1, 1.0, 4.0, 60.0]))
    logits = torch.randn(len(seeds), num_tokens, generator=generator) * scale
    if data.draw(st.booleans()):
        logits = logits.mul(2).round().div(2)
    logits = logits.to(data.draw(st.sampled_from([torch.float32, torch.bfloat16])))
    places = torch.arange(len(seeds)) * data.draw(st.integers(0, 2000))
    found, wanted = (draw(logits, configs, keys_of(*seeds), places) for draw in (by_sorting, draw_by_gumbel))
    assert torch.equal(found.tokens, wanted.tokens)
    assert torch.equal(found.confidence, wanted.confidence)


@pytest.mark.slow
def test_sorting_draws_what_looking_draws_thousands_of_times() -> None:
    logits = torch.randn(4000, 200, generator=torch.Generator().manual_seed(3)).mul(8).round().div(4)
    configs = [
        [*CONFIGS, SamplingConfig(temperature=0.0), SamplingConfig(top_k=50)][i % 8] for i in range(4000)
    ]
    keys, places = keys_of(*range(4000)), torch.arange(4000)
    found, wanted = (draw(logits, configs, keys, places) for draw in (by_sorting, draw_by_gumbel))
    assert torch.equal(found.tokens, wanted.tokens)
    assert torch.equal(found.confidence, wanted.confidence)
    assert (found.tokens != logits.argmax(dim=1)).float().mean() > 0.3
