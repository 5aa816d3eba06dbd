"""Whatever the logits, what is drawn is what top-k and top-p keep by their definition, one token after the other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_gumbel import by_sorting, keys_of

from cogview.decoding.config import SamplingConfig
from cogview.decoding.gumbel import draw_by_gumbel, gumbel_numbers
from cogview.decoding.inversion import sample

LEVELS = st.sampled_from([-math.inf, -1e30, -3.0, -0.5, 0.0, 1.0]) | st.floats(-30, 30, width=32)
"""Some of them often, so that there are ties."""
LOGITS = st.lists(LEVELS, min_size=1, max_size=24).filter(lambda levels: max(levels) > -math.inf)
CONFIGS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.none() | st.integers(1, 30),
    top_p=st.sampled_from([1.0, 0.999, 0.5, 1e-6]) | st.floats(0.01, 1.0),
)


def kept_by_definition(logits: list[float], config: SamplingConfig) -> list[int]:
    """Return the tokens that may be drawn, most probable first; nothing is compared that rounding could turn."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if config.temperature == 0:
        return order[:1]
    order = order[: config.top_k]
    mass = [math.exp((logits[token] - logits[order[0]]) / config.temperature) for token in order]
    kept, before = [], 0.0
    for token, each in zip(order, mass, strict=True):
        share = before / sum(mass)
        assume(config.top_p == 1 or not kept or abs(share - config.top_p) > 1e-5)
        if kept and share >= config.top_p:
            break
        if each:
            kept.append(token)
        before += each
    return kept


@settings(max_examples=60)
@given(LOGITS, CONFIGS, st.integers(0, 2**70), st.integers(0, 2000))
@pytest.mark.slow
def test_the_largest_sum_of_what_is_kept_is_drawn(
    levels: list[float], config: SamplingConfig, seed: int, place: int
) -> None:
    logits, keys, places = torch.tensor([levels]), keys_of(seed), torch.tensor([place])
    kept = kept_by_definition(logits[0].tolist(), config)
    scaled = logits[0] / (config.temperature or 1)
    sums = scaled[kept].double() + gumbel_numbers(keys, places, torch.tensor(kept))
    wanted = kept[int(sums.argmax())] if config.temperature else kept[0]
    for draw in (draw_by_gumbel, by_sorting):
        found = draw(logits, [config], keys, places)
        assert found.tokens.tolist() == [wanted]
        assert found.confidence[0] == torch.softmax(scaled, dim=0)[wanted]


@settings(max_examples=60)
@given(LOGITS, CONFIGS)
def test_each_level_has_its_share_of_the_unit_interval(levels: list[float], config: SamplingConfig) -> None:
    """Of equal logits any may be kept, so those of a level are counted together."""
    logits = torch.tensor([levels])
    values = logits[0].tolist()
    kept = kept_by_definition(values, config)
    num_points = 60
    points = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    drawn = sample(logits.expand(num_points, -1), config, points).tolist()
    mass = np.array([math.exp((values[t] - values[kept[0]]) / (config.temperature or 1)) for t in kept])
    for level in set(values):
        of_level = [value == level for value in values]
        wanted = mass[[of_level[token] for token in kept]].sum() / mass.sum()
        found = sum(of_level[token] for token in drawn) / num_points
        assert abs(found - wanted) <= (sum(of_level) + 0.001) / num_points + 1e-5
        if not any(of_level[token] for token in kept):
            assert not found
