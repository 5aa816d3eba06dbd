"""Attention maps: the weights that each layer really computed with, against the formula written out, and scores."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.attention import AttentionMaps, attention_maps, score_lines, score_table
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.telemetry import largest_values
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer

TEMPLATE = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=12, num_text_pieces=20),
    grid_rows=3,
    grid_columns=5,
    max_text_pieces=6,
)
PIECES = np.array([4, 0, 19, 7])
CODES = np.random.default_rng(0).integers(0, 12, (3, 5))
NUM_PREFIX = len(PIECES) + 3
REGIONS = ThreeRegionConfig(
    block_tokens=4,
    key_window_blocks=1,
    num_text_and_pivot_tokens=10,
    image_start_token=TEMPLATE.vocabulary.separator("BOI1"),
    num_image_tokens=15,
)


def transformer(**changes: object) -> Transformer:
    torch.manual_seed(0)
    config = {
        "num_layers": 2,
        "hidden_size": 24,
        "num_heads": 3,
        "vocabulary_size": TEMPLATE.vocabulary.size,
        "num_positions": TEMPLATE.num_positions,
        **changes,
    }
    model = Transformer(TransformerConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def whole(maps: AttentionMaps) -> Tensor:
    """Return all weights [l h k t], prefix and picture side by side; of the places that were chosen."""
    return torch.cat([maps.over_prefix, maps.over_picture.flatten(3)], dim=3)


def really_attended(model: Transformer) -> list[tuple[Tensor, Tensor]]:
    """Return of each layer the values of its heads, and what it gave to its output map, when it ran as always."""
    values, attended = [], []
    hooks = []
    for block in model.blocks:
        attention = block.attention
        hooks.append(
            attention.register_forward_pre_hook(
                lambda module, inputs: values.append(module.heads(inputs[0])[2][0])
            )
        )
        hooks.append(
            attention.output.register_forward_pre_hook(lambda _, inputs: attended.append(inputs[0][0]))
        )
    sequence = TEMPLATE.build(PIECES, CODES)
    with torch.no_grad():
        model.hidden_states(
            torch.from_numpy(sequence.tokens[None]), torch.from_numpy(sequence.positions[None])
        )
    for hook in hooks:
        hook.remove()
    return list(zip(values, attended, strict=True))


def slow_twin(model: Transformer) -> tuple[list[list[list[list[float]]]], list[list[list[float]]]]:
    """Return the weights of each layer, head and query over its keys, and all scores by layer and head."""
    sequence = TEMPLATE.build(PIECES, CODES)
    x = model.embedding(torch.from_numpy(sequence.tokens[None]), torch.from_numpy(sequence.positions[None]))
    all_weights, all_scores = [], []
    for block in model.blocks:
        query, key, _ = block.attention.heads(block.attention_input_norm(x))
        layer_weights, layer_scores = [], []
        for head in range(query.shape[1]):
            head_weights, head_scores = [], []
            for t in range(len(sequence.tokens) - 2):
                scores = [
                    float(query[0, head, t] @ key[0, head, k]) / math.sqrt(query.shape[3])
                    for k in range(t + 1)
                ]
                powers = [math.exp(score - max(scores)) for score in scores]
                head_weights.append([power / sum(powers) for power in powers])
                head_scores += [abs(score) for score in scores]
            layer_weights.append(head_weights)
            layer_scores.append(head_scores)
        all_weights.append(layer_weights)
        all_scores.append(layer_scores)
        x = block(x)
    return all_weights, all_scores


@pytest.mark.parametrize("attention", ["fused", "relaxed", "plain"])
def test_weights_and_scores_are_those_of_the_formula_written_out(attention: str) -> None:
    model = transformer(attention=attention)
    maps = attention_maps(model, TEMPLATE, PIECES, CODES)
    assert maps.over_prefix.shape == (2, 3, 15, NUM_PREFIX)
    assert maps.over_picture.shape == (2, 3, 15, 3, 5)
    with torch.no_grad():
        weights, scores = slow_twin(model)
    expected = torch.zeros_like(whole(maps))
    for layer, head, code in np.ndindex(2, 3, 15):
        row = weights[layer][head][NUM_PREFIX - 1 + code]
        expected[layer, head, code, : len(row)] = torch.tensor(row)
    torch.testing.assert_close(whole(maps), expected, rtol=1e-4, atol=1e-6)
    assert (whole(maps)[expected == 0] == 0).all()  # neither itself nor what comes later
    torch.testing.assert_close(whole(maps).sum(-1), torch.ones(2, 3, 15), rtol=0, atol=1e-6)
    for layer, head in np.ndindex(2, 3):
        here = scores[layer][head]
        assert maps.largest_scores[layer, head].item() == pytest.approx(max(here), rel=1e-5)
        assert maps.mean_absolute_scores[layer, head].item() == pytest.approx(np.mean(here), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "fused"},
        {"attention": "relaxed"},
        {"attention": "plain"},
        {"attention": "relaxed", "qk_norm": True, "layer_norm": "post"},
        {"attention_pattern": "three_region", "three_region": REGIONS},
    ],
)
def test_weights_are_what_each_layer_really_computed_with(changes: dict[str, object]) -> None:
    model = transformer(**changes)
    maps = attention_maps(model, TEMPLATE, PIECES, CODES)
    for layer, (value, attended) in enumerate(really_attended(model)):
        weights = whole(maps)[layer]
        expected = (weights @ value[:, : weights.shape[2]]).transpose(0, 1).flatten(1)
        got = attended[NUM_PREFIX - 1 : -2]
        assert got.abs().max() > 0.1
        torch.testing.assert_close(expected, got, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole(maps).sum(-1), torch.ones(2, 3, 15), rtol=0, atol=1e-6)


def test_a_sparse_transformer_has_no_weight_on_what_it_does_not_see() -> None:
    sparse = transformer(attention_pattern="three_region", three_region=REGIONS)
    maps = attention_maps(sparse, TEMPLATE, PIECES, CODES)
    earlier = torch.ones(15, 15).tril(-1).bool()
    unseen = (maps.over_picture.flatten(3) == 0)[:, :, earlier]
    assert unseen.any(2).all()
    # Pivots are those of a layer, not of a head.
    assert (unseen == unseen[:, :1]).all()
    sequence = TEMPLATE.build(PIECES, CODES)
    batch = [torch.from_numpy(array[None, :-2]) for array in (sequence.tokens, sequence.positions)]
    for model, found in (
        (sparse, maps),
        (dense := transformer(), attention_maps(dense, TEMPLATE, PIECES, CODES)),
    ):
        told = largest_values(model, *batch)
        for layer in range(2):
            largest = found.largest_scores[layer].max().item()
            assert largest == pytest.approx(told[f"attention_score_max/0{layer}"].item(), rel=1e-5)


def test_places_choose_maps_over_the_picture_and_nothing_else() -> None:
    model = transformer()
    all_maps = attention_maps(model, TEMPLATE, PIECES, CODES)
    some = attention_maps(model, TEMPLATE, PIECES, torch.from_numpy(CODES), [(2, 4), (0, 0)])
    assert some.places == ((2, 4), (0, 0))
    assert torch.equal(some.over_picture, all_maps.over_picture[:, :, [14, 0]])
    assert torch.equal(some.over_prefix, all_maps.over_prefix)
    assert not some.over_picture[:, :, 1].any()  # before the first code there is none
    assert all_maps.places[7] == (1, 2)


def test_shares_are_of_pieces_separators_and_picture() -> None:
    maps = attention_maps(transformer(), TEMPLATE, PIECES, CODES)
    assert torch.equal(maps.over_text, maps.over_prefix[..., 1:5])
    shares = maps.text_share + maps.separator_share + maps.picture_share
    torch.testing.assert_close(shares, torch.ones(2, 3))
    torch.testing.assert_close(maps.picture_share, maps.over_picture.sum((3, 4)).mean(2))


def test_a_text_that_is_too_long_loses_its_end() -> None:
    model, long = transformer(), np.arange(9)
    maps = attention_maps(model, TEMPLATE, long, CODES)
    assert torch.equal(maps.over_text, attention_maps(model, TEMPLATE, long[:6], CODES).over_text)


def test_looking_changes_nothing() -> None:
    model = transformer(dropout=0.5).train()
    sequence = TEMPLATE.build(PIECES, CODES)
    batch = [torch.from_numpy(array[None]) for array in (sequence.tokens, sequence.positions)]
    before = model.eval()(*batch)
    maps = attention_maps(model.train(), TEMPLATE, PIECES, CODES, [])
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model.eval()(*batch), before)
    assert torch.equal(attention_maps(model, TEMPLATE, PIECES, CODES, []).over_prefix, maps.over_prefix)


def test_half_precision_weights_still_sum_to_one() -> None:
    model = transformer(attention="relaxed")
    precise = attention_maps(model, TEMPLATE, PIECES, CODES)
    rounded = attention_maps(model.bfloat16(), TEMPLATE, PIECES, CODES)
    torch.testing.assert_close(whole(rounded).sum(-1), torch.ones(2, 3, 15), rtol=0, atol=1e-6)
    assert 0 < (whole(rounded) - whole(precise)).abs().mean() < 0.02


def test_an_adapter_is_looked_into_like_a_model_of_its_own() -> None:
    adapted = AdaptedTransformer(transformer(), AdapterConfig(rank=2))
    with torch.no_grad():
        for block in adapted.blocks:
            block.attention.query_key_value.up.weight.normal_(std=0.5)
    maps = attention_maps(adapted, TEMPLATE, PIECES, CODES)
    merged = attention_maps(adapted.merged(), TEMPLATE, PIECES, CODES)
    torch.testing.assert_close(maps.over_prefix, merged.over_prefix, rtol=1e-4, atol=1e-5)
    plain = attention_maps(transformer(), TEMPLATE, PIECES, CODES)
    assert (maps.over_prefix - plain.over_prefix).abs().max() > 0.01


@pytest.mark.parametrize("place", [(3, 0), (0, 5), (-1, 0), (0, -1)])
def test_a_place_outside_the_grid_is_refused(place: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"3 x 5 codes.* 0 to 2 "):
        attention_maps(transformer(), TEMPLATE, PIECES, CODES, [place])


def test_what_cannot_be_looked_at_is_refused() -> None:
    model = transformer()
    with pytest.raises(UsageError, match="no pieces"):
        attention_maps(model, TEMPLATE, [], CODES)
    with pytest.raises(CogViewError, match="shape"):
        attention_maps(model, TEMPLATE, PIECES, CODES.T)
    with torch.no_grad():
        model.blocks[0].attention.query_key_value.weight[0] = torch.nan
    with pytest.raises(CogViewError, match="infinite or NaN"):
        attention_maps(model, TEMPLATE, PIECES, CODES)


def test_the_table_has_a_line_for_each_head_and_compares_them() -> None:
    maps = attention_maps(transformer(), TEMPLATE, PIECES, CODES, [])
    scores = torch.tensor([[1.5, 2.0, 3.0], [4.0, 40.25, 6.0]])
    maps = dataclasses.replace(maps, largest_scores=scores)
    table = score_table(maps)
    assert [(each["layer"], each["head"]) for each in table] == [*np.ndindex(2, 3)]
    assert table[4]["largest_score"] == 40.25
    assert table[4]["text_share"] == maps.text_share[1, 1].item()
    lines = score_lines(table)
    shares = [100 * table[4][f"{part}_share"] for part in ("text", "separator", "picture")]
    mean = table[4]["mean_absolute_score"]
    words = ["1", "1", "40.25", f"{mean:.2f}", *(word for share in shares for word in (f"{share:.1f}", "%"))]
    assert lines[5].split() == words
    assert lines[-1] == "largest scores by head: from 1.50 (layer 0, head 0) to 40.25 (layer 1, head 1)"
