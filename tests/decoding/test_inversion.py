"""Codes are drawn from exactly the distribution that temperature, top-k and top-p leave, row by row."""

import math

import numpy as np
import pytest
import torch

from cogview.decoding.config import SamplingConfig
from cogview.decoding.inversion import sample, seeded_uniforms
from cogview.errors import UsageError

NUM_CODES = 40
CONFIGS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.7),
    SamplingConfig(top_k=5),
    SamplingConfig(top_p=0.6),
    SamplingConfig(temperature=1.3, top_k=12, top_p=0.8),
    SamplingConfig(top_k=1000, top_p=0.999),
]


def exact_distribution(logits: torch.Tensor, config: SamplingConfig) -> np.ndarray:
    """Return the distribution by its definition, one code after the other, in double precision."""
    values = logits.double().numpy() / config.temperature
    order = sorted(range(len(values)), key=lambda code: -values[code])[: config.top_k]
    mass = {code: math.exp(values[code] - values[order[0]]) for code in order}
    total = sum(mass.values())
    kept, reached = [], 0.0
    for code in order:
        kept.append(code)
        reached += mass[code] / total
        if reached >= config.top_p:
            break
    distribution = np.zeros(len(values))
    distribution[kept] = [mass[code] for code in kept]
    return distribution / distribution.sum()


def different_rows(batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    scale = torch.linspace(0.5, 4.0, batch)[:, None]  # from nearly level to one code that takes most
    return torch.randn(batch, NUM_CODES, generator=generator) * scale


def test_of_equal_logits_a_row_draws_the_same_in_any_company() -> None:
    logits = torch.randn(7, 2048, generator=torch.Generator().manual_seed(0)).mul(4).round().bfloat16()
    least = logits.topk(200).values[:, -1:]
    assert (logits == least).sum(dim=1).min() > 1  # the last of them have equals on both sides of the cut
    config = SamplingConfig(top_k=200, temperature=3.0)
    for number in range(20):
        uniforms = seeded_uniforms([number], 7)[0]
        together = sample(logits, config, uniforms)
        for row in range(7):
            assert sample(logits[row, None], config, uniforms[row, None]) == together[row]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.slow
def test_every_code_has_exactly_its_share_of_the_unit_interval(config: SamplingConfig, batch: int) -> None:
    logits = different_rows(batch)
    num_points = 250
    points = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    drawn = torch.stack([sample(logits, config, point.expand(batch)) for point in points])
    for row in range(batch):
        exact = exact_distribution(logits[row], config)
        found = np.bincount(drawn[:, row].numpy(), minlength=NUM_CODES) / num_points
        # A code's stretch holds its share of an even comb of points, give or take one at its ends.
        assert np.abs(found - exact).max() <= 1.001 / num_points + 1e-6
        assert set(np.flatnonzero(found)) <= set(np.flatnonzero(exact))


@pytest.mark.parametrize("config", CONFIGS[:5], ids=str)
@pytest.mark.slow
def test_draws_of_many_seeds_follow_the_exact_distribution(config: SamplingConfig) -> None:
    logits = different_rows(3)[1]
    num_draws = 20_000
    uniforms = seeded_uniforms(range(num_draws), 1)[:, 0]
    drawn = sample(logits.expand(num_draws, -1), config, uniforms)
    expected = exact_distribution(logits, config) * num_draws
    counts = np.bincount(drawn.numpy(), minlength=NUM_CODES)
    common = expected >= 5
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    degrees = common.sum() - 1
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)
    assert counts[expected == 0].sum() == 0


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_row_does_not_depend_on_the_others(config: SamplingConfig) -> None:
    logits, uniforms = different_rows(5), seeded_uniforms(range(5), 1)[:, 0]
    together = sample(logits, config, uniforms)
    alone = [sample(logits[row, None], config, uniforms[row, None]) for row in range(5)]
    assert torch.equal(together, torch.cat(alone))


def test_the_ends_of_the_interval_draw_kept_codes() -> None:
    logits = different_rows(5)
    for config in CONFIGS:
        for end in (0.0, math.nextafter(1.0, 0.0)):
            drawn = sample(logits, config, torch.full((5,), end, dtype=torch.float64))
            for row in range(5):
                assert exact_distribution(logits[row], config)[drawn[row]] > 0


def test_temperature_zero_and_top_k_one_take_the_most_probable() -> None:
    logits, uniforms = different_rows(5), seeded_uniforms(range(5), 1)[:, 0]
    for config in (SamplingConfig(temperature=0.0), SamplingConfig(top_k=1), SamplingConfig(top_p=1e-6)):
        assert torch.equal(sample(logits, config, uniforms), logits.argmax(-1))


def test_half_precision_logits_are_drawn_from_as_their_values_say() -> None:
    logits, uniforms = different_rows(5).bfloat16(), seeded_uniforms(range(5), 1)[:, 0]
    config = SamplingConfig(top_k=12, top_p=0.9)
    assert torch.equal(sample(logits, config, uniforms), sample(logits.float(), config, uniforms))


def test_a_seed_gives_its_numbers_in_any_company() -> None:
    together = seeded_uniforms([7, 2**40, 0], 100)
    assert torch.equal(together[0], seeded_uniforms([7], 100)[0])
    assert torch.equal(together[1, :10], seeded_uniforms([2**40], 10)[0])
    assert not torch.equal(together[0], together[2])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", 1e-40),
        ("temperature", math.nan),
        ("top_k", 0),
        ("guidance", -0.1),
        ("guidance", 101.0),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
    ],
)
def test_impossible_numbers_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        SamplingConfig(**{field: value})
