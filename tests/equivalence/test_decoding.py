"""Decoding with prepared weights and a cache computes what the plain transformer computes at once."""

import dataclasses

import pytest
import torch

from cogview.decoding.engine import Runner
from cogview.decoding.linear import can_pack
from cogview.decoding.pool import PAGE, Row
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer
from passes import logits_in_pieces, new_rows, run

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


ONE_BY_ONE = [NUM_PREFIX] + [1] * (NUM_TOKENS - NUM_PREFIX)


def decoded_logits(
    runner: Runner,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    sizes: list[int] = ONE_BY_ONE,
    **options: bool,
) -> torch.Tensor:
    """Return the logits after the prefix and after each later token, run in pieces."""
    found = logits_in_pieces(runner, tokens, positions, LEGAL, sizes, num_text=NUM_PREFIX, **options)
    return found[:, NUM_PREFIX - 1 :]


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
@pytest.mark.slow
def test_cached_logits_are_the_uncached_ones_at_every_position(
    change: dict[str, object], backend: str
) -> None:
    if backend == "packed" and not can_pack("cpu", torch.float32):
        pytest.skip("fp32 weights cannot be packed here")
    transformer = random_transformer(dataclasses.replace(CONFIG, **change))
    tokens, positions = random_tokens()
    uncached = plain_logits(transformer, tokens, positions)
    cached = decoded_logits(Runner.of(transformer, backend=backend), tokens, positions)
    assert uncached.std() > 0.5
    assert (cached - uncached).abs().max() < 2e-5
    if change.get("norm_scope") != "tensor":
        for is_fused in (False, True):
            runner = Runner.of(transformer, backend=backend)
            for sizes in ([NUM_PREFIX, 33], [3, 4, 20, 1, 1, 11], [NUM_PREFIX + 5, 2, 16, 10]):
                in_pieces = decoded_logits(runner, tokens, positions, sizes, is_fused=is_fused)
                assert (in_pieces - uncached).abs().max() < 2e-5


@torch.inference_mode()
@pytest.mark.slow
def test_whole_tensor_scope_is_that_of_one_token_decoded_alone() -> None:
    config = dataclasses.replace(CONFIG, norm_scope="tensor")
    transformer = random_transformer(config)
    tokens, positions = random_tokens()
    runner = Runner.of(transformer)
    together = decoded_logits(runner, tokens, positions)
    # The maximum over more tokens than one only changes how much epsilon weighs.
    assert (together - plain_logits(transformer, tokens, positions)).abs().max() < 2e-2
    alone = torch.cat([decoded_logits(runner, tokens[[row]], positions[[row]]) for row in range(BATCH)])
    assert (together - alone).abs().max() < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "change", [{}, {"attention_pattern": "three_region", "three_region": REGIONS}], ids=str
)
@torch.inference_mode()
@pytest.mark.slow
def test_a_token_has_the_same_bits_however_many_are_run_with_it(
    change: dict[str, object], dtype: torch.dtype
) -> None:
    """In pieces of any size, and of any number of rows."""
    runner = Runner.of(random_transformer(dataclasses.replace(CONFIG, **change)), dtype=dtype)
    tokens, positions = random_tokens()
    one_by_one = decoded_logits(runner, tokens, positions)
    for sizes in ([NUM_PREFIX, 33], [3, 4, 20, 1, 1, 11], [1] * NUM_TOKENS):
        assert torch.equal(decoded_logits(runner, tokens, positions, sizes), one_by_one)
    for row in range(BATCH):
        assert torch.equal(decoded_logits(runner, tokens[[row]], positions[[row]])[0], one_by_one[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@torch.inference_mode()
@pytest.mark.slow
def test_so_it_is_where_pages_meet(dtype: torch.dtype) -> None:
    """With heads of 64, where products large enough for the library's kernels are made."""
    num_tokens = 2 * PAGE + 9
    config = dataclasses.replace(CONFIG, num_layers=1, hidden_size=128, num_positions=num_tokens)
    runner = Runner.of(random_transformer(config), dtype=dtype)
    tokens = torch.randint(
        CONFIG.vocabulary_size, (2, num_tokens), generator=torch.Generator().manual_seed(3)
    )
    positions = torch.arange(num_tokens).expand(2, -1)
    whole = logits_in_pieces(runner, tokens, positions, LEGAL, [num_tokens])
    for sizes in ([PAGE - 1, 1, 1, 1, PAGE - 4, 11], [5, PAGE, PAGE, 4], [PAGE, PAGE, 9]):
        assert torch.equal(logits_in_pieces(runner, tokens, positions, LEGAL, sizes), whole)


@torch.inference_mode()
@pytest.mark.slow
def test_rows_are_cut_back_and_go_on_as_if_nothing_had_been_there() -> None:
    for change in ({}, {"attention_pattern": "three_region", "three_region": REGIONS}):
        runner = Runner.of(random_transformer(dataclasses.replace(CONFIG, **change)))
        tokens, positions = random_tokens()
        wanted = decoded_logits(runner, tokens, positions)
        pool, rows = new_rows(runner, BATCH, NUM_TOKENS, NUM_PREFIX)
        run(runner, pool, rows, tokens[:, :NUM_PREFIX], positions[:, :NUM_PREFIX])
        wrong = (tokens + 1) % CONFIG.vocabulary_size
        for place in range(NUM_PREFIX, NUM_TOKENS):
            guessed = run(runner, pool, rows, wrong[:, place:], positions[:, place:])
            for row in rows:
                row.length = place
            states = run(runner, pool, rows, tokens[:, place : place + 1], positions[:, place : place + 1])
            logits = runner.variant.head(LEGAL)(states[:, 0])
            assert torch.equal(logits, wanted[:, place - NUM_PREFIX + 1])
            assert not torch.equal(guessed[:, 0], states[:, 0])


@pytest.mark.parametrize("backend", ["packed", "plain"])
@torch.inference_mode()
@pytest.mark.slow
def test_bf16_weights_change_logits_by_their_rounding_only(backend: str) -> None:
    if backend == "packed" and not can_pack("cpu", torch.bfloat16):
        pytest.skip("bf16 weights cannot be packed here")
    transformer = random_transformer(CONFIG)
    tokens, positions = random_tokens()
    exact = plain_logits(transformer, tokens, positions)
    runner = Runner.of(transformer, dtype=torch.bfloat16, backend=backend)
    rounded = decoded_logits(runner, tokens, positions)
    assert (rounded.float() - exact).abs().max() < 0.06 * exact.std()


@pytest.mark.parametrize("num_shared", [1, PAGE - 3, PAGE, PAGE + 5])
@torch.inference_mode()
@pytest.mark.slow
def test_rows_begin_as_others_and_leave_them_alone(num_shared: int) -> None:
    """Whole pages are shared, the rest is copied: against rows that had those tokens from the beginning."""
    num_tokens = num_shared + 9
    runner = Runner.of(random_transformer(dataclasses.replace(CONFIG, num_positions=num_tokens)))
    tokens = torch.randint(
        CONFIG.vocabulary_size, (3, num_tokens), generator=torch.Generator().manual_seed(2)
    )
    tokens[:, :num_shared] = tokens[0, :num_shared]
    positions = torch.arange(num_tokens).expand(3, -1)
    wanted = logits_in_pieces(runner, tokens, positions, LEGAL, [num_tokens])[:, num_shared:]
    pool, (first,) = new_rows(runner, 1, num_tokens)
    run(runner, pool, [first], tokens[:1, :num_shared], positions[:1, :num_shared])
    rows = [first]
    for _ in range(2):
        row = Row(pool, num_tokens)
        row.share_prefix(first, num_shared)
        rows.append(row)
    states = run(runner, pool, rows, tokens[:, num_shared:], positions[:, num_shared:])
    assert torch.equal(runner.variant.head(LEGAL)(states.flatten(0, 1)).view_as(wanted), wanted)
    num_held = pool.num_pages - pool.num_free
    assert num_held == 3 * -(-num_tokens // PAGE) - 2 * (num_shared // PAGE)
    for row in rows:
        row.free()
    assert pool.num_free == pool.num_pages
