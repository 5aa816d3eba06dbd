"""Three-region sparse attention: what is seen, by which weight, and that all ways to compute it agree."""

import dataclasses
import warnings

import pytest
import torch

from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.three_region import (
    Regions,
    count_text,
    draw_regions,
    keys_seen,
    masked_dense_attention,
    sees,
    sees_all,
)
from cogview.transformer.three_region_kernels import (
    _flex_blocks,
    block_attention,
    flexible_attention,
    three_region_attention,
)

SMALL = ThreeRegionConfig(
    block_tokens=4,
    key_window_blocks=2,
    num_text_and_pivot_tokens=12,
    image_start_token=1,
    num_image_tokens=30,
)
FLEX = dataclasses.replace(
    SMALL, block_tokens=128, num_text_and_pivot_tokens=200, num_image_tokens=700, image_start_token=1
)
NUM_TEXT = (5, 3, 8)


def regions(config: ThreeRegionConfig = SMALL, num_tokens: int = 36, num_layers: int = 2) -> list[Regions]:
    """Return what three sequences with texts of unlike length see; the first two have one seed."""
    return draw_regions(torch.tensor(NUM_TEXT), torch.tensor([7, 7, 9]), num_tokens, num_layers, config)


def heads(t: int, k: int | None = None, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(len(NUM_TEXT), 2, num, 16, generator=generator, requires_grad=True)
        for num in (t, k or t, k or t)
    ]


def random_tokens(num: int = 36) -> torch.Tensor:
    """Return tokens whose texts, ended by token 1, are of unlike length."""
    tokens = torch.randint(2, 50, (len(NUM_TEXT), num), generator=torch.Generator().manual_seed(1))
    for row, num_text in enumerate(NUM_TEXT):
        tokens[row, num_text - 1] = 1
    return tokens


@pytest.mark.parametrize(
    ("num_text", "num_image_tokens", "block_tokens", "expected"),
    [(5, 7, 2, True), (5, 8, 2, False), (5, 8, 6, False), (5, 8, 7, True)],
)
def test_what_sees_all_is_dense_attention(
    num_text: int, num_image_tokens: int, block_tokens: int, expected: bool
) -> None:
    config = dataclasses.replace(SMALL, num_image_tokens=num_image_tokens, block_tokens=block_tokens)
    num_tokens = num_text + num_image_tokens
    # Of one draw the few that are no pivots may happen to lie in the windows.
    [drawn] = draw_regions(torch.full((20,), num_text), torch.arange(20), num_tokens, 1, config)
    seen = sees(torch.arange(num_tokens), num_tokens, drawn, config)
    assert torch.equal(seen, torch.ones_like(seen).tril()) == sees_all(num_text, config) == expected


def test_a_text_ends_with_the_token_that_starts_the_image() -> None:
    tokens = random_tokens()
    tokens[:, 20] = 1  # a later one says nothing
    assert count_text(tokens, 1).tolist() == list(NUM_TEXT)
    assert count_text(tokens[:, :3], 1).tolist() == [3, 3, 3]


def test_slots_hold_the_text_and_pivots_of_the_picture_in_order() -> None:
    for layer in regions():
        for row, num_text in enumerate(NUM_TEXT):
            places = layer.places[row].tolist()
            assert places[:num_text] == list(range(num_text))
            pivots = places[num_text:]
            assert len(pivots) == SMALL.num_text_and_pivot_tokens - num_text
            assert pivots == sorted(set(pivots))
            assert num_text <= pivots[0]
            assert pivots[-1] < num_text + SMALL.num_image_tokens


def test_pivots_depend_on_seed_and_layer_and_on_nothing_else() -> None:
    first, second = regions()
    assert not torch.equal(first.places[0, 5:], second.places[0, 5:])
    # One seed: the longer text leaves room for fewer, and those are drawn for the shorter one, too.
    pivots = [set((first.places[row, NUM_TEXT[row] :] - NUM_TEXT[row]).tolist()) for row in range(3)]
    assert pivots[0] < pivots[1]
    assert not pivots[2] < pivots[1]
    longer = regions(num_tokens=80, num_layers=5)[1]
    assert torch.equal(longer.places, second.places)


def test_every_place_of_a_picture_is_drawn_equally_often() -> None:
    num_draws, config = 4_000, dataclasses.replace(SMALL, num_text_and_pivot_tokens=10, num_image_tokens=40)
    drawn = draw_regions(torch.zeros(num_draws, dtype=torch.int64), torch.arange(num_draws), 40, 2, config)
    for layer in drawn:
        counts = layer.places.flatten().bincount(minlength=40).double()
        expected = num_draws * 10 / 40
        assert ((counts - expected).abs() < 5 * (expected * 0.75) ** 0.5).all()
    together = (drawn[0].places[:, :, None] == drawn[1].places[:, None]).any(2).double().sum(1)
    assert together.mean().item() == pytest.approx(10 * 10 / 40, rel=0.03)  # layers are independent


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"key_window_blocks": 1},
        {"block_tokens": 5, "key_window_blocks": 3},
        {"num_text_and_pivot_tokens": 8},  # one of the texts leaves no room for pivots
        {"num_text_and_pivot_tokens": 6},  # and here it is longer than there are slots
        {"num_text_and_pivot_tokens": 60},  # empty slots
        {"num_image_tokens": 10},  # the picture ends before the sequence
    ],
    ids=str,
)
@pytest.mark.parametrize("t", [36, 34, 7, 1])
@pytest.mark.slow
def test_blocks_are_the_masked_dense_reference_and_so_are_their_gradients(
    change: dict[str, int], t: int
) -> None:
    config = dataclasses.replace(SMALL, **change)
    for layer in regions(config):
        plain, fast = heads(t), heads(t)
        weights = torch.randn(len(NUM_TEXT), 2, t, 16, generator=torch.Generator().manual_seed(2))
        wanted = masked_dense_attention(*plain, layer, config)
        got = block_attention(*fast, layer, config)
        assert torch.allclose(got, wanted, atol=2e-6)
        (wanted * weights).sum().backward()
        (got * weights).sum().backward()
        for ours, reference in zip(fast, plain, strict=True):
            assert ours.grad is not None
            assert torch.allclose(ours.grad, reference.grad, atol=1e-5)
        with torch.no_grad():  # another way than with a gradient
            assert torch.allclose(three_region_attention(*fast, layer, config), wanted, atol=2e-6)


@pytest.mark.parametrize("t", [1, 3, 11])
def test_the_last_queries_see_what_they_see_among_all(t: int) -> None:
    query, key, value = heads(36)
    layer = regions()[0]
    whole = block_attention(query, key, value, layer, SMALL)
    assert torch.allclose(
        block_attention(query[:, :, -t:], key, value, layer, SMALL), whole[:, :, -t:], atol=2e-6
    )
    assert torch.allclose(
        masked_dense_attention(query[:, :, -t:], key, value, layer, SMALL), whole[:, :, -t:], atol=2e-6
    )


def test_half_precision_is_near_the_reference() -> None:
    exact, rounded = heads(36), [x.bfloat16().detach().requires_grad_() for x in heads(36)]
    layer = regions()[0]
    wanted = masked_dense_attention(*exact, layer, SMALL)
    got = block_attention(*rounded, layer, SMALL)
    assert got.dtype == torch.bfloat16
    assert (got.float() - wanted).abs().max() < 0.05
    wanted.sum().backward()
    got.sum().backward()
    assert (rounded[2].grad.float() - exact[2].grad).abs().max() < 0.1


@pytest.mark.parametrize("change", [{}, {"block_tokens": 256}, {"num_text_and_pivot_tokens": 128}], ids=str)
@pytest.mark.parametrize("t", [700, 512, 100])
@torch.no_grad()
@pytest.mark.slow
def test_flex_attention_is_the_masked_dense_reference(change: dict[str, int], t: int) -> None:
    config = dataclasses.replace(FLEX, **change)
    query, key, value = (x.detach() for x in heads(t))
    for layer in regions(config, num_tokens=700):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            got = flexible_attention(query, key, value, layer, config)
        assert torch.allclose(got, masked_dense_attention(query, key, value, layer, config), atol=2e-6)


@pytest.mark.parametrize("change", [{}, {"block_tokens": 256}, {"num_text_and_pivot_tokens": 128}], ids=str)
def test_the_blocks_that_flex_attention_reads_are_those_seen(change: dict[str, int]) -> None:
    """Outside of a GPU it asks the mask of every pair and looks at no table of blocks, so that is tested by itself."""
    config, t = dataclasses.replace(FLEX, **change), 700
    layer = regions(config, num_tokens=t)[0]
    num_slots = -(-config.num_text_and_pivot_tokens // 128) * 128
    slots = torch.nn.functional.pad(layer.places, (0, num_slots - layer.places.shape[1]), value=10**6)
    place, blocks = (
        torch.arange(768),
        torch.arange(768) // config.block_tokens,
    )  # to the end of the last block
    start = ((blocks - config.key_window_blocks + 1) * config.block_tokens).clamp(min=0)[:, None]
    in_window = (place <= place[:, None]) & (place >= start)
    seen = torch.cat([slots[:, None] < start, in_window.expand(len(slots), -1, -1)], dim=2)
    tiles = seen.unflatten(2, (-1, 128)).unflatten(1, (-1, 128)).transpose(2, 3).flatten(3)
    whole, partial = _flex_blocks(layer, t, num_slots // 128, config)
    assert torch.equal(whole, tiles.all(3))
    assert torch.equal(partial, tiles.any(3) & ~tiles.all(3))


def test_pivots_stand_for_the_tokens_that_were_not_drawn() -> None:
    """Where all scores are equal, text and window weigh what they do in dense attention, and pivots all the rest."""
    t = 36
    value = torch.eye(t).expand(len(NUM_TEXT), 1, t, t).contiguous()
    weights = block_attention(torch.zeros_like(value), torch.zeros_like(value), value, regions()[0], SMALL)[
        :, 0
    ]
    for row, num_text in enumerate(NUM_TEXT):
        for place in range(t):
            first = max(0, (place // 4 - 1) * 4)
            seen = weights[row, place]
            pivots = regions()[0].places[row, num_text:]
            if first <= num_text or (pivots < first).any():
                assert seen[:num_text][: place + 1] == pytest.approx(1 / (place + 1))
                assert seen[first : place + 1] == pytest.approx(1 / (place + 1))
                assert seen[num_text:first].sum() == pytest.approx(
                    max(0, first - num_text) / (place + 1), abs=1e-6
                )
            assert (seen[place + 1 :] == 0).all()


@pytest.mark.slow
def test_dropout_drops_weights_and_leaves_their_mean() -> None:
    query, key, value = (x.detach() for x in heads(36))
    layer = regions()[0]
    torch.manual_seed(0)
    dropped = [block_attention(query, key, value, layer, SMALL, 0.3) for _ in range(600)]
    assert not torch.equal(dropped[0], dropped[1])
    exact = masked_dense_attention(query, key, value, layer, SMALL)
    assert (torch.stack(dropped).mean(0) - exact).abs().mean() < 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("t", [700, 512])
def test_a_gpu_computes_what_the_cpu_does_and_its_gradients(t: int) -> None:
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(len(NUM_TEXT), 2, t, 16, generator=generator)
    made = []
    for device in ("cpu", "cuda"):
        inputs = [x.detach().to(device).requires_grad_() for x in heads(t)]
        seeds = torch.tensor([7, 7, 9], device=device)
        drawn = draw_regions(torch.tensor(NUM_TEXT, device=device), seeds, t, 2, FLEX)
        attended = three_region_attention(*inputs, drawn[1], FLEX)
        made.append([attended, *torch.autograd.grad(attended, inputs, weights.to(device)), drawn[1].places])
    for on_cpu, on_gpu in zip(*made, strict=True):
        # Products may be rounded to TF32 there.
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=2e-2, rtol=2e-2)


def test_keys_are_counted_as_they_are_seen() -> None:
    places, num_text = torch.arange(36), torch.tensor(NUM_TEXT)
    counted = keys_seen(places, num_text, SMALL)
    layers = draw_regions(num_text, torch.arange(3), 36, 400, SMALL)
    drawn = torch.stack([sees(places, 36, layer, SMALL).sum(2).double() for layer in layers])
    torch.testing.assert_close(counted.double() + 0.5, drawn.mean(0), rtol=0, atol=0.25)
    everything = dataclasses.replace(SMALL, num_text_and_pivot_tokens=40)
    assert keys_seen(places, num_text, everything).mean().item() == pytest.approx(18)


def test_what_a_query_sees_is_what_changes_it() -> None:
    [layer] = regions(num_layers=1)
    query, key, value = heads(36)
    out = masked_dense_attention(query, key, value, layer, SMALL)
    seen = sees(torch.arange(36), 36, layer, SMALL)
    for place in (3, 17, 35):
        (gradient,) = torch.autograd.grad(out[:, :, place].sum(), value, retain_graph=True)
        assert torch.equal(gradient.abs().sum((1, 3)) > 0, seen[:, place])
