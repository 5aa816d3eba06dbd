"""Low-rank adapters: a fresh one changes nothing, a trained one changes only what is its own."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.errors import UsageError
from cogview.transformer.adapter import AdaptedTransformer, LowRankLinear, adapter_shapes
from cogview.transformer.config import AdapterConfig, TransformerConfig
from cogview.transformer.model import Transformer

CONFIG = TransformerConfig(num_layers=2, hidden_size=32, num_heads=2, vocabulary_size=128, num_positions=24)
WHOLE = AdapterConfig(rank=3, alpha=6.0, trains_norms=True, num_positions=30, token_rows=(5, 120, 7))


def new_transformer(**changes: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(dataclasses.replace(CONFIG, **changes)).eval()


def tokens_and_positions(num_positions: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(128, (3, 20), generator=generator)
    tokens[0, :3] = torch.tensor([5, 7, 120])
    return tokens, torch.randint(num_positions, (3, 20), generator=generator)


@torch.no_grad()
def changed(base: Transformer, config: AdapterConfig, seed: int = 0) -> AdaptedTransformer:
    """Return an adapted transformer none of whose own weights is where it starts."""
    adapted = AdaptedTransformer(base, config, seed)
    torch.manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return adapted


@given(
    st.fixed_dictionaries(
        {
            "rank": st.integers(1, 5),
            "maps": st.lists(st.sampled_from(AdapterConfig().maps), unique=True, min_size=1).map(tuple),
            "trains_norms": st.booleans(),
            "num_positions": st.none() | st.integers(1, 40),
            "token_rows": st.lists(st.integers(0, 127), unique=True, max_size=3).map(tuple),
        }
    ),
    st.booleans(),
    st.sampled_from(["sandwich", "pre", "post"]),
)
@settings(max_examples=30, deadline=None)
@pytest.mark.slow
def test_its_shapes_are_known_before_it_is_made(fields: dict, qk_norm: bool, layer_norm: str) -> None:
    config = AdapterConfig(**fields)
    base = new_transformer(qk_norm=qk_norm, layer_norm=layer_norm)
    shapes = {name: tuple(each.shape) for name, each in AdaptedTransformer(base, config).state_dict().items()}
    assert adapter_shapes(base, config) == shapes


@pytest.mark.parametrize("config", [AdapterConfig(), WHOLE], ids=["maps", "all"])
@torch.no_grad()
def test_a_fresh_adapter_changes_nothing(config: AdapterConfig) -> None:
    base = new_transformer()
    tokens, positions = tokens_and_positions()
    assert torch.equal(AdaptedTransformer(base, config)(tokens, positions), base(tokens, positions))


@torch.no_grad()
def test_attention_is_computed_another_way_in_an_adapter_and_not_in_its_base() -> None:
    base = new_transformer(attention="relaxed")
    tokens, positions = tokens_and_positions()
    adapted = changed(base, AdapterConfig())
    relaxed = adapted(tokens, positions)
    adapted.compute_attention("fused")
    assert (
        {block.attention.config.attention for block in adapted.blocks}
        == {adapted.config.attention}
        == {"fused"}
    )
    assert (
        {block.attention.config.attention for block in base.blocks} == {base.config.attention} == {"relaxed"}
    )
    torch.testing.assert_close(adapted(tokens, positions), relaxed, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_each_of_several_adapters_computes_its_own_and_the_base_stays_as_it_is() -> None:
    base = new_transformer()
    names, weights = list(base.state_dict()), [p.clone() for p in base.parameters()]
    tokens, positions = tokens_and_positions()
    before = base(tokens, positions)
    first, second = changed(base, WHOLE, 1), changed(base, AdapterConfig(rank=2), 2)
    logits = first(tokens, positions), second(tokens, positions)
    assert not torch.allclose(logits[0], before, atol=1e-3)
    assert not torch.allclose(logits[1], before, atol=1e-3)
    assert not torch.allclose(*logits, atol=1e-3)
    assert torch.equal(first(tokens, positions), logits[0])
    assert torch.equal(base(tokens, positions), before)
    assert list(base.state_dict()) == names
    assert all(torch.equal(old, new) for old, new in zip(weights, base.parameters(), strict=True))
    assert {p.data_ptr() for p in base.blocks.parameters() if p.ndim == 2} <= {
        p.data_ptr() for p in second.parameters()
    }  # shared, not copied


@pytest.mark.parametrize("qk_norm", [False, True])
@torch.no_grad()
def test_merged_weights_compute_the_same(qk_norm: bool) -> None:
    adapted = changed(new_transformer(qk_norm=qk_norm), WHOLE)
    tokens, positions = tokens_and_positions(30)
    merged = adapted.merged()
    assert not any(isinstance(module, LowRankLinear) for module in merged.modules())
    assert list(merged.state_dict()) == list(Transformer(merged.config).state_dict())
    assert torch.allclose(merged(tokens, positions), adapted(tokens, positions), atol=1e-5)
    assert torch.equal(merged.head(range(100, 125)), adapted.head(range(100, 125)))


def test_only_the_adapter_is_trained_and_stored() -> None:
    base = new_transformer()
    adapted = changed(base, WHOLE)
    tokens, positions = tokens_and_positions(30)
    adapted(tokens, positions).logsumexp(-1).sum().backward()
    trained = {name for name, each in adapted.named_parameters() if each.grad is not None}
    assert trained == set(adapted.state_dict())
    assert all(parameter.grad is None for parameter in base.parameters())
    assert trained == (
        {"embedding.tokens.rows", "embedding.positions.weight"}
        | {name for name in base.state_dict() if "norm" in name}
        | {
            f"blocks.{layer}.{place}.{half}.weight"
            for layer in range(2)
            for place in AdapterConfig().maps
            for half in ("down", "up")
        }
    )


@torch.no_grad()
def test_its_tensors_make_another_adapter_of_the_base_the_same() -> None:
    base = new_transformer()
    adapted, other = changed(base, WHOLE), AdaptedTransformer(base, WHOLE, seed=9)
    other.load_state_dict(adapted.state_dict(), strict=False)
    tokens, positions = tokens_and_positions(30)
    assert torch.equal(other(tokens, positions), adapted(tokens, positions))


@torch.no_grad()
def test_own_rows_serve_as_embedding_and_as_head() -> None:
    base = new_transformer()
    adapted = AdaptedTransformer(base, AdapterConfig(maps=(), token_rows=(5, 120, 7)))
    own = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    adapted.load_state_dict({"embedding.tokens.rows": own}, strict=False)
    slow = new_transformer()
    slow.embedding.tokens.weight[[5, 120, 7]] = own
    tokens, positions = tokens_and_positions()
    assert torch.equal(adapted(tokens, positions), slow(tokens, positions))
    for rows in (range(4, 8), range(100, 121), range(20, 50)):
        assert torch.equal(adapted.head(rows), slow.head(rows))


@torch.no_grad()
def test_own_positions_start_where_they_are_told_to() -> None:
    base = new_transformer()
    held = base.embedding.positions.weight
    longer = AdaptedTransformer(base, AdapterConfig(num_positions=30)).embedding.positions.weight
    assert torch.equal(longer[:24], held)
    assert 0.01 < float(longer[24:].std()) < 0.03
    shorter = AdaptedTransformer(base, AdapterConfig(num_positions=4)).embedding.positions.weight
    assert torch.equal(shorter, held[:4])
    given = torch.arange(6 * 32).float().view(6, 32)
    told = AdaptedTransformer(base, AdapterConfig(num_positions=6), positions=given)
    assert torch.equal(told.embedding.positions.weight, given)
    assert told.config.num_positions == 6


def test_an_adapter_is_the_same_for_a_seed_and_leaves_the_generator_alone() -> None:
    base = new_transformer()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first, again, other = (AdaptedTransformer(base, WHOLE, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "adapter.rank.* 1.* 0"),
        ({"alpha": 0.0}, "adapter.alpha.* 0"),
        ({"maps": ("mlp.inner", "mlp.inner")}, "adapter.maps"),
        ({"num_positions": 0}, "adapter.num_positions.* 1"),
        ({"token_rows": (3, 3)}, "adapter.token_rows.* once"),
    ],
)
def test_impossible_adapters_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AdapterConfig(**changes)  # type: ignore[arg-type]


def test_rows_that_the_base_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="128"):
        AdaptedTransformer(new_transformer(), AdapterConfig(token_rows=(128,)))


@pytest.mark.parametrize("config", [AdapterConfig(), WHOLE], ids=["maps", "all"])
@torch.no_grad()
def test_at_another_strength_maps_add_so_many_times_as_much(config: AdapterConfig) -> None:
    base = new_transformer()
    tokens, positions = tokens_and_positions()
    adapted = changed(base, config)
    before = adapted(tokens, positions)
    half = adapted.at_strength(0.5)
    # The slow twin: weights of its own, halved.
    twin = changed(base, config)
    for module in twin.modules():
        if isinstance(module, LowRankLinear):
            module.up.weight.mul_(0.5)
    torch.testing.assert_close(half(tokens, positions), twin(tokens, positions))
    assert not torch.allclose(half(tokens, positions), before)
    assert torch.equal(adapted(tokens, positions), before)
    assert torch.equal(adapted.at_strength(1.0)(tokens, positions), before)
    assert half.adapter.alpha == config.alpha / 2
    held = {tensor.data_ptr() for tensor in (*base.parameters(), *adapted.parameters())}
    assert {tensor.data_ptr() for tensor in half.parameters()} <= held  # nothing is copied
    assert half.state_dict().keys() == adapted.state_dict().keys()
    torch.testing.assert_close(
        half.merged()(tokens, positions), twin(tokens, positions), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("strength", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_strength_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match=r"strength.* 0"):
        AdaptedTransformer(new_transformer(), AdapterConfig()).at_strength(strength)
