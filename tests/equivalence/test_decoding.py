"""Decoding with prepared weights and a cache computes what the plain transformer computes at once."""

import dataclasses

import pytest
import torch

from cogview.generation.cache import FusedCache, TableCache
from cogview.generation.decoder import Decoder
from cogview.generation.linear import can_pack
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer

CONFIG = TransformerConfig(num_layers=3, hidden_size=96, num_heads=2, vocabulary_size=256, num_positions=64)
REGIONS = ThreeRegionConfig(
    block_tokens=4,
    key_window_blocks=2,
    num_text_and_pivot_tokens=15,
    image_start_token=200,
    num_image_tokens=35,
)
LEGAL = range(32, 160)
NUM_TOKENS, NUM_PREFIX, BATCH = 40, 7, 3


def random_transformer(config: TransformerConfig) -> Transformer:
    """Return a transformer whose every weight, norms and biases included, matters."""
    torch.manual_seed(0)
    transformer = Transformer(config).eval()
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            is_norm_weight = "norm.weight" in name
            parameter.copy_(torch.randn_like(parameter) * (0.2 if is_norm_weight else 0.1) + is_norm_weight)
    return transformer


def random_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and positions; all sequences begin with the same prefix."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(CONFIG.vocabulary_size, (BATCH, NUM_TOKENS), generator=generator)
    tokens[:, :NUM_PREFIX] = tokens[0, :NUM_PREFIX]
    tokens[:, NUM_PREFIX - 1] = REGIONS.image_start_token
    positions = torch.arange(NUM_TOKENS) + (torch.arange(NUM_TOKENS) >= NUM_PREFIX) * 5
    return tokens, positions.expand(BATCH, -1)


def decoded_logits(decoder: Decoder, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the logits after the prefix and after each later token, fed one by one."""
    cache = decoder.new_cache(len(tokens), NUM_TOKENS)
    hidden = decoder.prefill(tokens[:, :NUM_PREFIX], positions[:, :NUM_PREFIX], cache)
    logits = [decoder.logits(hidden)]
    for place in range(NUM_PREFIX, NUM_TOKENS):
        logits.append(decoder.logits(decoder.decode(tokens[:, place], positions[:, place], cache)))
    return torch.stack(logits, dim=1)


def plain_logits(transformer: Transformer, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return transformer(tokens, positions)[:, NUM_PREFIX - 1 :, LEGAL.start : LEGAL.stop]


@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"norm_scope": "none"},
        {"layer_norm": "pre"},
        {"layer_norm": "post"},
        {"attention": "relaxed"},
        {"qk_norm": True},
        {"attention_pattern": "three_region", "three_region": REGIONS},
        {"attention_pattern": "three_region", "three_region": REGIONS, "qk_norm": True},
    ],
    ids=str,
)
@torch.inference_mode()
def test_cached_logits_are_the_uncached_ones_at_every_position(
    change: dict[str, object], backend: str
) -> None:
    if backend == "packed" and not can_pack("cpu", torch.float32):
        pytest.skip("fp32 weights cannot be packed here")
    transformer = random_transformer(dataclasses.replace(CONFIG, **change))
    tokens, positions = random_tokens()
    uncached = plain_logits(transformer, tokens, positions)
    cached = decoded_logits(Decoder(transformer, LEGAL, backend=backend), tokens, positions)
    assert uncached.std() > 0.5
    assert (cached - uncached).abs().max() < 2e-5


@torch.inference_mode()
def test_whole_tensor_scope_is_that_of_one_token_decoded_alone() -> None:
    config = dataclasses.replace(CONFIG, norm_scope="tensor")
    transformer = random_transformer(config)
    tokens, positions = random_tokens()
    decoder = Decoder(transformer, LEGAL)
    together = decoded_logits(decoder, tokens, positions)
    # The maximum over more tokens than one only changes how much epsilon weighs.
    assert (together - plain_logits(transformer, tokens, positions)).abs().max() < 2e-2
    alone = torch.cat([decoded_logits(decoder, tokens[[row]], positions[[row]]) for row in range(BATCH)])
    assert (together - alone).abs().max() < 2e-5


@torch.inference_mode()
def test_a_shared_prefill_is_that_of_each_sequence() -> None:
    transformer = random_transformer(CONFIG)
    tokens, positions = random_tokens()
    decoder = Decoder(transformer, LEGAL)
    shared, separate = decoder.new_cache(1, NUM_PREFIX), decoder.new_cache(BATCH, NUM_PREFIX)
    state = decoder.prefill(tokens[:1, :NUM_PREFIX], positions[:1, :NUM_PREFIX], shared)
    states = decoder.prefill(tokens[:, :NUM_PREFIX], positions[:, :NUM_PREFIX], separate)
    assert torch.allclose(state.expand_as(states), states, atol=1e-5)
    shared_by_all = decoder.new_cache(BATCH, NUM_PREFIX)
    shared_by_all.copy_prompts([shared] * BATCH)
    assert torch.allclose(shared_by_all.keys, separate.keys, atol=1e-5)
    assert torch.allclose(shared_by_all.values, separate.values, atol=1e-5)


@torch.inference_mode()
def test_a_large_cache_gives_the_bits_of_a_small_one() -> None:
    decoder = Decoder(random_transformer(CONFIG), LEGAL)
    tokens, positions = random_tokens()
    states = []
    for capacity in (NUM_PREFIX + 1, NUM_TOKENS):
        cache = decoder.new_cache(BATCH, capacity)
        decoder.prefill(tokens[:, :NUM_PREFIX], positions[:, :NUM_PREFIX], cache)
        states.append(decoder.decode(tokens[:, NUM_PREFIX], positions[:, NUM_PREFIX], cache))
    assert torch.equal(*states)


@pytest.mark.parametrize("backend", ["packed", "plain"])
@torch.inference_mode()
def test_bf16_weights_change_logits_by_their_rounding_only(backend: str) -> None:
    if backend == "packed" and not can_pack("cpu", torch.bfloat16):
        pytest.skip("bf16 weights cannot be packed here")
    transformer = random_transformer(CONFIG)
    tokens, positions = random_tokens()
    exact = plain_logits(transformer, tokens, positions)
    decoder = Decoder(transformer, LEGAL, dtype=torch.bfloat16, backend=backend)
    rounded = decoded_logits(decoder, tokens, positions)
    assert (rounded.float() - exact).abs().max() < 0.06 * exact.std()


@pytest.mark.parametrize("cache_of", [TableCache, FusedCache])
@torch.inference_mode()
def test_sequences_go_on_from_others_tokens(cache_of: type[TableCache] | type[FusedCache]) -> None:
    """Beside a second block of keys, against sequences that had those tokens from the beginning."""
    num_shared, num_tokens = TableCache.BLOCK - 3, TableCache.BLOCK + 5
    decoder = Decoder(random_transformer(dataclasses.replace(CONFIG, num_positions=num_tokens)), LEGAL)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(CONFIG.vocabulary_size, (4, num_tokens), generator=generator)
    tokens[:, :num_shared] = tokens[0, :num_shared]
    positions = torch.arange(num_tokens).expand(4, -1)
    rows = torch.tensor([2, 0, 2, 1])

    def filled(tokens: torch.Tensor) -> TableCache | FusedCache:
        cache = cache_of(decoder.config, 4, num_tokens)
        decoder.prefill(tokens[:, :num_shared], positions[:, :num_shared], cache)
        for place in range(num_shared, num_tokens - 1):
            decoder.decode(tokens[:, place], positions[:, place], cache)
        return cache

    taken, wanted = filled(tokens), filled(tokens[rows])
    taken.take_rows(rows, num_shared)
    states = [decoder.decode(tokens[:, -1], positions[:, -1], cache) for cache in (taken, wanted)]
    assert torch.allclose(*states, atol=1e-5)
    assert not torch.allclose(
        states[0], decoder.decode(tokens[:, -1], positions[:, -1], filled(tokens)), atol=1e-2
    )
