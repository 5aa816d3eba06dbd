"""Attention by masks of the picture's grid: masks by their rule, and every way to compute it alike."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.errors import UsageError
from cogview.generation.text_to_image import draw, picture_request
from cogview.training.flops import flops_per_token
from cogview.transformer.adapter import AdaptedTransformer, adapter_shapes
from cogview.transformer.cache import KeyValueCache
from cogview.transformer.config import AdapterConfig, AttentionKind, GridConfig, GridMask, TransformerConfig
from cogview.transformer.grid_attention import LayerGrid, mean_keys
from cogview.transformer.grid_attention_kernels import gathered_keys
from grid_models import grid_template, grid_transformer

TEXT, SIDE, AFTER = 3, 4, 2


def sees(kind: GridMask, kernel: int, wraps: bool, query: int, key: int) -> bool:
    """Say whether a token sees another, by the rule for one pair of places."""
    if key > query:
        return False
    cells = range(TEXT, TEXT + SIDE * SIDE)
    if query not in cells or key not in cells:
        return True
    if kind == "row":
        return query - key <= SIDE
    if kind == "column":
        return (query - key) % SIDE == 0
    (row, column), (other_row, other_column) = (divmod(place - TEXT, SIDE) for place in (query, key))
    far = []
    for distance in (abs(row - other_row), abs(column - other_column)):
        far.append(min(distance, SIDE - distance) if wraps else distance)
    return max(far) <= kernel // 2


@pytest.mark.parametrize(
    ("kind", "kernel", "wraps"),
    [
        ("row", 0, False),
        ("column", 0, False),
        ("convolution", 3, False),
        ("convolution", 3, True),
        ("convolution", 1, False),
    ],
)
def test_masks_follow_their_rule(kind: GridMask, kernel: int, wraps: bool) -> None:
    grid = GridConfig(
        num_rows=SIDE, num_columns=SIDE, first_place=TEXT, masks=(kind,), kernel_sizes=(kernel,), wraps=wraps
    )
    num = TEXT + SIDE * SIDE + AFTER
    mask = LayerGrid.of(grid, 0).mask(num)
    wanted = [[sees(kind, kernel, wraps, query, key) for key in range(num)] for query in range(num)]
    assert mask.tolist() == wanted
    assert LayerGrid.of(grid, 0).mask(num, 2).tolist() == wanted[-2:]
    assert mean_keys(grid, num) == sum(map(sum, wanted)) / num


@pytest.mark.parametrize(("wraps", "shift", "extra"), [*product([False], [0], [-5, 0, 4]), (True, 1, -1)])
@torch.no_grad()
def test_all_computations_agree(wraps: bool, shift: int, extra: int) -> None:
    """A whole sequence in groups, by the two formulas, and token by token with a cache."""
    template = grid_template()
    transformer = grid_transformer(template, wraps=wraps, shift=shift)
    num_text = template.num_text_tokens
    num = num_text + template.num_codes_per_image + extra
    tokens = torch.randint(0, 50, (2, num), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(num).expand(2, -1)
    logits = transformer(tokens, positions)
    kinds: tuple[AttentionKind, ...] = ("plain", "relaxed")
    for kind in kinds:
        transformer.compute_attention(kind)
        torch.testing.assert_close(transformer(tokens, positions), logits, atol=1e-5, rtol=0)
    transformer.compute_attention("fused")
    cache = KeyValueCache(transformer.config, 2, num)
    states = [transformer.extend(tokens[:, :num_text], positions[:, :num_text], cache)]
    states += [
        transformer.extend(tokens[:, place : place + 1], positions[:, place : place + 1], cache)
        for place in range(num_text, num)
    ]
    torch.testing.assert_close(transformer.logits(torch.cat(states, 1)), logits, atol=1e-5, rtol=0)
    # The masks count: without them the logits are others.
    transformer.compute_attention("plain")
    for block in transformer.blocks:
        block.forward = lambda x, cache=None, pattern=None, block=block: type(block).forward(block, x)
    assert (transformer(tokens, positions) - logits).abs().max() > 1e-2


def test_gradients_agree() -> None:
    """Also of an incomplete last row, whose group repeats a query."""
    template = grid_template()
    transformer = grid_transformer(template)
    num = template.max_tokens - 2
    tokens, positions = torch.arange(num)[None] % 50, torch.arange(num)[None]
    gradients = []
    kinds: tuple[AttentionKind, ...] = ("fused", "plain")
    for kind in kinds:
        transformer.compute_attention(kind)
        transformer.zero_grad()
        transformer(tokens, positions).square().sum().backward()
        gradients.append({name: each.grad for name, each in transformer.named_parameters()})
    for name, wanted in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], wanted, atol=1e-3, rtol=1e-4)


def test_groups_read_a_fraction_of_the_keys() -> None:
    template = grid_template(num_text=8, side=16)
    grid = grid_transformer(template).config.grid
    num = template.max_tokens
    assert gathered_keys(grid, num) < num * 5
    assert mean_keys(grid, num) < num / 5


def test_a_mask_is_cheaper_than_none() -> None:
    template = grid_template()
    config = grid_transformer(template).config
    dense = replace(config, attention_pattern="dense")
    num = template.max_tokens
    assert flops_per_token(config, num, 10) < flops_per_token(dense, num, 10)
    assert config.num_parameters == sum(each.numel() for each in grid_transformer(template).parameters())


def test_adapters_may_have_positions_of_their_own() -> None:
    base = grid_transformer(grid_template())
    adapted = AdaptedTransformer(base, AdapterConfig(rank=2, num_positions=base.config.num_positions + 3))
    tokens, positions = torch.arange(12)[None], torch.arange(12)[None] + 4
    with torch.no_grad():
        wanted = base(tokens, positions)
        torch.testing.assert_close(adapted(tokens, positions), wanted)
        torch.testing.assert_close(adapted.merged()(tokens, positions), wanted)


def test_adapters_may_have_rows_of_embedding_and_head() -> None:
    """Of tokens that a picture is drawn from, and others; alike in the engine."""
    template = grid_template()
    base = grid_transformer(template)
    adapter = AdapterConfig(rank=2, token_rows=(3, 15, 40))
    adapted = AdaptedTransformer(base, adapter)
    shapes = {name: tuple(each.shape) for name, each in adapted.state_dict().items()}
    assert shapes == adapter_shapes(base, adapter)
    tokens, positions = torch.arange(12)[None] * 3, torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens, positions), base(tokens, positions))
        for name, parameter in adapted.named_parameters():
            if name.endswith((".rows", ".row_biases")):
                parameter.add_(0.5)
        changed = adapted(tokens, positions)
        assert (changed - base(tokens, positions)).abs().max() > 0.1
        torch.testing.assert_close(adapted.merged()(tokens, positions), changed)
    config = SamplingConfig(temperature=0.0)
    alone, beside = (
        draw(runner, [picture_request(runner, template, [1, 2], 0, config)])
        for runner in (Runner.of(adapted.merged()), Runner.of(adapted))
    )
    assert torch.equal(alone, beside)


@pytest.mark.parametrize(
    "wrong",
    [
        {"masks": ("row",), "kernel_sizes": ()},
        {"masks": ("row",), "kernel_sizes": (3,)},
        {"masks": ("convolution",), "kernel_sizes": (4,)},
        {"num_rows": 0},
        {"num_rows": 2**20, "num_columns": 2**20},
        {"first_place": 0},
        {"first_position": -1},
    ],
)
def test_impossible_grids_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GridConfig(**wrong)


def test_a_transformer_needs_a_mask_for_each_layer_and_positions_for_the_grid() -> None:
    grid = GridConfig(masks=("row",), kernel_sizes=(0,))
    shape: dict[str, Any] = {"hidden_size": 8, "num_heads": 1, "grid": grid}
    with pytest.raises(UsageError, match="layers"):
        TransformerConfig(num_layers=2, attention_pattern="grid", **shape)
    with pytest.raises(UsageError, match="num_positions"):
        TransformerConfig(num_layers=1, position_table="rows_and_columns", num_positions=100, **shape)
