"""A transformer with three-region attention: against the dense one, checkpointed, cached, and as a config."""

import dataclasses
import json

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from cogview.errors import UsageError
from cogview.plain_json import dataclass_from_json
from cogview.transformer.cache import KeyValueCache
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer

REGIONS = ThreeRegionConfig(
    block_tokens=4,
    key_window_blocks=2,
    num_text_and_pivot_tokens=12,
    image_start_token=1,
    num_image_tokens=30,
)
CONFIG = TransformerConfig(
    num_layers=3,
    hidden_size=32,
    num_heads=2,
    vocabulary_size=50,
    num_positions=36,
    attention_pattern="three_region",
    three_region=REGIONS,
)
NUM_TEXT = (5, 3, 8)
NUM_TOKENS = 36


def random_transformer(config: TransformerConfig = CONFIG) -> Transformer:
    """Return a transformer of large random weights, so that every key matters."""
    torch.manual_seed(0)
    transformer = Transformer(config).eval()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return transformer


def random_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens whose texts, ended by token 1, are of unlike length, and their positions."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 50, (len(NUM_TEXT), NUM_TOKENS), generator=generator)
    for row, num_text in enumerate(NUM_TEXT):
        tokens[row, num_text - 1] = 1
    return tokens, torch.arange(NUM_TOKENS).expand_as(tokens)


@pytest.mark.parametrize(
    "change", [{"num_text_and_pivot_tokens": 38}, {"key_window_blocks": 9}, {"block_tokens": 40}], ids=str
)
@torch.no_grad()
def test_with_all_tokens_as_pivots_or_in_the_window_it_is_the_dense_transformer(
    change: dict[str, int],
) -> None:
    dense = random_transformer(dataclasses.replace(CONFIG, attention_pattern="dense"))(*random_tokens())
    regions = dataclasses.replace(REGIONS, **change)
    sparse = random_transformer(dataclasses.replace(CONFIG, three_region=regions))(*random_tokens())
    assert torch.allclose(sparse, dense, atol=1e-4)
    assert not torch.allclose(random_transformer()(*random_tokens()), dense, atol=1e-1)


@torch.no_grad()
def test_no_token_sees_a_later_one() -> None:
    transformer = random_transformer()
    tokens, positions = random_tokens()
    changed = tokens.clone()
    changed[:, 20] = 2 + (changed[:, 20] - 1) % 48
    before, after = transformer(tokens, positions), transformer(changed, positions)
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-5)
    assert not torch.allclose(before[:, 20:], after[:, 20:], atol=1e-2)


@torch.no_grad()
def test_pivots_are_drawn_anew_in_training_and_are_always_the_same_in_evaluation() -> None:
    transformer, inputs = random_transformer(), random_tokens()
    evaluated = transformer(*inputs)
    state = torch.get_rng_state()
    assert torch.equal(transformer(*inputs), evaluated)
    assert torch.equal(torch.get_rng_state(), state)
    alone = transformer(*(x[1:2] for x in inputs))
    assert torch.allclose(alone, evaluated[1:2], atol=1e-5)
    transformer.train()
    torch.manual_seed(0)
    first, second = transformer(*inputs), transformer(*inputs)
    assert not torch.allclose(first, second, atol=1e-1)
    torch.manual_seed(0)
    assert torch.equal(transformer(*inputs), first)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputed_blocks_see_the_same_pivots(dropout: float) -> None:
    transformer = random_transformer(dataclasses.replace(CONFIG, dropout=dropout)).train()
    tokens, positions = random_tokens()

    def gradients() -> list[torch.Tensor]:
        transformer.zero_grad()
        torch.manual_seed(3)
        transformer.hidden_states(tokens, positions).square().mean().backward()
        return [p.grad.clone() for p in transformer.parameters() if p.grad is not None]

    plain = gradients()
    num_computed = 0
    for block in transformer.blocks:
        forward = block.forward

        def recomputed(*inputs: object, forward=forward, **named: object) -> object:
            def counted(*inputs: object, **named: object) -> object:
                nonlocal num_computed
                num_computed += 1
                return forward(*inputs, **named)

            return checkpoint(counted, *inputs, use_reentrant=False, **named)

        block.forward = recomputed
    again = gradients()
    assert num_computed == 2 * CONFIG.num_layers
    assert len(plain) == len(again) == len(list(transformer.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("chunks", [[36], [1] * 36, [2, 1, 4, 9, 1, 1, 18], [8, 28]], ids=str)
@torch.no_grad()
@pytest.mark.slow
def test_cached_logits_equal_uncached_at_every_position(chunks: list[int], qk_norm: bool) -> None:
    transformer = random_transformer(dataclasses.replace(CONFIG, qk_norm=qk_norm))
    tokens, positions = random_tokens()
    uncached = transformer(tokens, positions)
    cache = KeyValueCache(transformer.config, len(tokens), NUM_TOKENS)
    hidden = [
        transformer.extend(t, p, cache)
        for t, p in zip(tokens.split(chunks, 1), positions.split(chunks, 1), strict=True)
    ]
    assert torch.allclose(transformer.logits(torch.cat(hidden, 1)), uncached, atol=2e-4)


@torch.no_grad()
def test_normalised_queries_and_keys_forget_their_scale() -> None:
    for attention in ("fused", "relaxed"):
        config = dataclasses.replace(CONFIG, attention_pattern="dense", attention=attention, qk_norm=True)
        transformer = random_transformer(config)
        before = transformer(*random_tokens())
        for block in transformer.blocks:
            block.attention.query_key_value.weight[: 2 * config.hidden_size] *= 50
            block.attention.query_key_value.bias[: 2 * config.hidden_size] *= 50
        assert torch.allclose(transformer(*random_tokens()), before, atol=1e-2)
        transformer.blocks[0].attention.key_norm.weight *= 50  # but the gains matter
        assert not torch.allclose(transformer(*random_tokens()), before, atol=1e-1)


def test_normalised_heads_start_at_gain_one_and_are_counted() -> None:
    config = dataclasses.replace(CONFIG, qk_norm=True)
    transformer = Transformer(config)
    assert torch.equal(transformer.blocks[1].attention.query_norm.weight, torch.ones(16))
    assert sum(p.numel() for p in transformer.parameters()) == config.num_parameters
    assert config.num_parameters == CONFIG.num_parameters + 3 * 2 * 16


def test_a_config_file_keeps_the_regions_and_an_old_one_is_dense() -> None:
    config = dataclasses.replace(CONFIG, qk_norm=True)
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert dataclass_from_json(TransformerConfig, values) == config
    for name in ("attention_pattern", "three_region", "qk_norm"):
        del values[name]
    assert dataclass_from_json(TransformerConfig, values) == dataclasses.replace(
        CONFIG, attention_pattern="dense", three_region=ThreeRegionConfig()
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"qk_norm": "no"}, "qk_norm.* 'no'.* true or false"),
        ({"three_region": 3}, "three_region is 3"),
        ({"three_region": {"block_tokens": 1.5}}, "block_tokens is 1.5"),
    ],
)
def test_a_damaged_config_file_is_refused(change: dict[str, object], what: str) -> None:
    with pytest.raises(TypeError, match=what):
        dataclass_from_json(TransformerConfig, dataclasses.asdict(CONFIG) | change)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"three_region .*fused.* relaxed"):
        dataclasses.replace(CONFIG, attention="relaxed")
    with pytest.raises(UsageError, match=r"block_tokens.* 1 to 1,048,576.* 0"):
        ThreeRegionConfig(block_tokens=0)
    with pytest.raises(UsageError, match=r"image_start_token.* -1"):
        ThreeRegionConfig(image_start_token=-1)
