"""Where a new transformer's weights start."""

import numpy as np
import pytest
import torch

from cogview.errors import UsageError
from cogview.transformer.config import InitialisationConfig, TransformerConfig
from cogview.transformer.initialisation import start_branches, start_positions, super_resolution_positions
from cogview.transformer.model import Transformer


def build(layer_norm: str = "sandwich", hidden_size: int = 64) -> Transformer:
    torch.manual_seed(0)
    return Transformer(
        TransformerConfig(
            num_layers=2,
            hidden_size=hidden_size,
            num_heads=2,
            vocabulary_size=50,
            num_positions=80,
            layer_norm=layer_norm,
        )
    )


def test_a_branch_adds_at_first_what_its_gain_says() -> None:
    transformer = build()
    start_branches(transformer, 0.05)
    block = transformer.blocks[0]
    x = torch.randn(3, 5, 64)
    added = block.attention_output_norm(block.attention(x)).detach()
    assert float(added.std()) == pytest.approx(0.05, rel=0.02)
    assert torch.equal(block.attention_input_norm.weight, torch.ones(64))
    assert torch.equal(transformer.final_norm.weight, torch.ones(64))


@pytest.mark.parametrize("layer_norm", ["pre", "post"])
def test_a_gain_needs_norms_that_end_the_branches(layer_norm: str) -> None:
    start_branches(build(layer_norm), 1.0)
    with pytest.raises(UsageError, match=f"branch_gain 0.05 .*sandwich.* {layer_norm}"):
        start_branches(build(layer_norm), 0.05)


def test_one_linear_map_finds_the_code_above_from_anywhere() -> None:
    transformer = build()
    rows, columns = 8, 8
    start_positions(transformer, np.arange(10, 74), rows, columns)
    table = transformer.embedding.positions.weight.detach()[10:74].view(rows, columns, 64).double()
    below, above = table[1:].flatten(0, 1), table[:-1].flatten(0, 1)
    to_above = torch.linalg.lstsq(below, above, rcond=1e-5, driver="gelsd").solution
    assert torch.allclose(below @ to_above, above, atol=1e-5)
    # All places differ, so that the map tells one place above from all others.
    distances = torch.cdist(table.flatten(0, 1), table.flatten(0, 1))
    assert distances.fill_diagonal_(1.0).min() > 0.01


def test_only_the_codes_positions_change_and_their_scale_stays() -> None:
    before, after = build(), build()
    start_positions(after, np.arange(10, 74), 8, 8)
    difference = (before.embedding.positions.weight != after.embedding.positions.weight).any(dim=1)
    assert difference[10:74].all()
    assert not difference[:10].any()
    assert not difference[74:].any()
    scale = after.embedding.positions.weight[10:74].detach().square().mean().sqrt()
    assert float(scale) == pytest.approx(0.02, rel=1e-3)


def test_a_width_that_waves_do_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"4.* 6"):
        start_positions(build(hidden_size=6), np.arange(4), 2, 2)


def test_a_gain_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match=r"branch_gain.* 0"):
        InitialisationConfig(branch_gain=0.0)


def test_positions_of_an_upscaled_picture_start_between_those_of_its_low_codes() -> None:
    base = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    low, high = np.arange(3, 9), np.arange(15, 39)  # 2x3 and 4x6
    table = super_resolution_positions(base, low, high, (2, 3), 40)
    assert torch.equal(table[:12], base)
    assert not table[12:15].any()
    assert not table[39].any()
    grid, upscaled = base[3:9].view(2, 3, 8), table[15:39].view(4, 6, 8)
    # The centre of high code (y, x) lies at ((y - 0.5) / 2, (x - 0.5) / 2) of the low ones.
    upper = 0.75 * grid[0, 1] + 0.25 * grid[0, 2]
    lower = 0.75 * grid[1, 1] + 0.25 * grid[1, 2]
    assert torch.allclose(upscaled[1, 3], 0.75 * upper + 0.25 * lower, atol=1e-6)
    assert torch.allclose(upscaled[0, 0], grid[0, 0], atol=1e-6)
    assert len(torch.unique(upscaled.flatten(0, 1), dim=0)) == 24
