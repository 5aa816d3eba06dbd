"""Upscaling with windows, guesses and a cache draws what a plain loop over pictures, windows and codes draws."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.inversion import sample, seeded_uniforms
from cogview.decoding.proposer import Proposer
from cogview.errors import CogViewError, UsageError
from cogview.generation.super_resolution import SuperResolution, window_seed
from cogview.generation.windows import center_continuous_windows
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, TransformerConfig
from cogview.transformer.model import Transformer

VOCABULARY = Vocabulary(num_image_codes=40, num_text_pieces=20)
LOW = TextToImageTemplate(
    vocabulary=VOCABULARY, grid_rows=4, grid_columns=4, max_text_pieces=5, image_positions="fixed"
)
OWN = SuperResolutionTemplate.of(LOW, high_positions="after_low")
RESTARTING = SuperResolutionTemplate.of(dataclasses.replace(LOW, image_positions="after_text"), released=True)
TEXTS = [np.array(pieces, dtype=np.int64) for pieces in ([3, 1, 4, 1, 5, 9], [2], [7, 7], [], [1, 2, 3])]
SEEDS = [5, 0, 2**40, 7, 5]
GREEDY, SEEDED = (
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=1.3, top_k=30, top_p=0.95, sampler="inversion"),
)


@cache
def random_transformer(template: SuperResolutionTemplate) -> Transformer:
    """Return a transformer far from level, so that every token and position moves what is drawn."""
    torch.manual_seed(0)
    config = TransformerConfig(
        num_layers=2,
        hidden_size=32,
        num_heads=2,
        vocabulary_size=VOCABULARY.size,
        num_positions=template.num_positions,
    )
    transformer = Transformer(config).eval()
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            # The head is tied to the tokens' table: were that the largest, a code would foretell itself.
            parameter.mul_(1 if "norm" in name else 50 if "positions" in name else 5)
    return transformer


def upscaler(template: SuperResolutionTemplate, max_batch: int = 16) -> SuperResolution:
    transformer = random_transformer(template)
    return SuperResolution(
        Runner.of(transformer, max_batch=max_batch, proposer=Proposer(is_eager=True)), template
    )


def pictures(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCABULARY.num_image_codes, (len(TEXTS), rows, columns), generator=generator)


@torch.inference_mode()
def plainly_doubled(
    template: SuperResolutionTemplate,
    codes: np.ndarray,
    pieces: np.ndarray,
    seed: int,
    config: SamplingConfig,
    stage: int = 0,
    transformer: Transformer | AdaptedTransformer | None = None,
) -> np.ndarray:
    """Return a picture at twice its rows and columns; the whole sequence is run for each code."""
    transformer = transformer or random_transformer(template)
    high = np.full((2 * codes.shape[0], 2 * codes.shape[1]), -1)
    for number, window in enumerate(center_continuous_windows(codes.shape, (4, 4))):
        low = codes[window.row : window.row + 4, window.column : window.column + 4]
        there = high[2 * window.row : 2 * window.row + 8, 2 * window.column : 2 * window.column + 8]
        prefix = template.prefix(pieces, low)
        tokens, positions = prefix.tokens.tolist(), prefix.positions.tolist()
        uniforms = iter(seeded_uniforms([window_seed(seed, stage, number)], 64)[0])
        is_begun = False
        for place in range(8 * window.num_rows):
            row, column = divmod(place, 8)
            is_begun |= bool(there[row, column] < 0)
            uniform = next(uniforms) if is_begun else None
            if there[row, column] < 0:
                assert uniform is not None
                logits = transformer(torch.tensor([tokens]), torch.tensor([positions]))[:, -1]
                legal = logits[:, : VOCABULARY.num_image_codes]
                there[row, column] = int(sample(legal, config, uniform[None])[0])
            tokens.append(int(there[row, column]))
            positions.append(int(template.high_code_positions()[place]))
    return high


@pytest.mark.parametrize(
    ("grid", "template", "config"),
    [
        ((4, 4), OWN, GREEDY),
        ((4, 4), RESTARTING, SEEDED),
        ((8, 8), OWN, SEEDED),
        ((5, 6), RESTARTING, GREEDY),
    ],
    ids=["whole-greedy", "whole-seeded", "windows-seeded", "windows-greedy"],
)
@pytest.mark.slow
def test_codes_are_those_of_a_plain_loop(
    grid: tuple[int, int], template: SuperResolutionTemplate, config: SamplingConfig
) -> None:
    codes = pictures(*grid)[:2]
    drawn = upscaler(template).upscale(codes, TEXTS[:2], SEEDS[:2], config)
    expected = [
        plainly_doubled(template, picture, pieces, seed, config)
        for picture, pieces, seed in zip(codes.numpy(), TEXTS, SEEDS, strict=False)
    ]
    np.testing.assert_array_equal(drawn.numpy(), np.stack(expected))
    assert len(np.unique(drawn)) > 10


@cache
def adapted_transformer(template: SuperResolutionTemplate) -> AdaptedTransformer:
    """Return the same transformer with an adapter that changes what is drawn; a row of its own is a legal code."""
    adapter = AdapterConfig(rank=3, trains_norms=True, token_rows=(7, VOCABULARY.separator("BOI1")))
    adapted = AdaptedTransformer(random_transformer(template), adapter).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return adapted


@settings(max_examples=6)
@given(
    grid=st.tuples(st.integers(4, 6), st.integers(4, 7)),
    numbers=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=3),
    is_adapted=st.booleans(),
    template=st.sampled_from([OWN, RESTARTING]),
    config=st.sampled_from([GREEDY, SEEDED]),
    max_batch=st.integers(1, 4),
)
@pytest.mark.slow
def test_windows_of_any_grid_are_those_of_a_plain_loop_with_an_adapter_too(
    grid: tuple[int, int],
    numbers: list[int],
    is_adapted: bool,
    template: SuperResolutionTemplate,
    config: SamplingConfig,
    max_batch: int,
) -> None:
    transformer = adapted_transformer(template) if is_adapted else random_transformer(template)
    base = Runner.of(random_transformer(template), max_batch=max_batch, proposer=Proposer(is_eager=True))
    runner = base.adapted(transformer) if isinstance(transformer, AdaptedTransformer) else base
    codes = pictures(*grid)[numbers]
    texts, seeds = [TEXTS[number] for number in numbers], [SEEDS[number] for number in numbers]
    drawn = SuperResolution(runner, template).upscale(codes, texts, seeds, config)
    place = len(numbers) // 2  # the loop takes long, and which of them is as good as any other
    expected = plainly_doubled(
        template, codes[place].numpy(), texts[place], seeds[place], config, transformer=transformer
    )
    np.testing.assert_array_equal(drawn[place].numpy(), expected)


@pytest.mark.slow
def test_a_factor_of_four_is_two_doublings_with_seeds_of_their_own() -> None:
    codes, low = (
        upscaler(OWN).upscale(pictures(4, 4)[:1], TEXTS[:1], SEEDS[:1], SEEDED, factor=4),
        pictures(4, 4),
    )
    middle = plainly_doubled(OWN, low[0].numpy(), TEXTS[0], SEEDS[0], SEEDED)
    high = plainly_doubled(OWN, middle, TEXTS[0], SEEDS[0], SEEDED, stage=1)
    np.testing.assert_array_equal(codes[0].numpy(), high)


@pytest.mark.parametrize("grid", [(4, 4), (6, 8)], ids=str)
@pytest.mark.slow
def test_a_picture_comes_out_the_same_in_any_company(grid: tuple[int, int]) -> None:
    codes = pictures(*grid)
    together = upscaler(OWN).upscale(codes, TEXTS, SEEDS, SEEDED)
    in_turn = upscaler(OWN, max_batch=3)
    assert torch.equal(in_turn.upscale(codes, TEXTS, SEEDS, SEEDED), together)
    for number in (0, 3):
        alone = in_turn.upscale(
            codes[[number]], TEXTS[number : number + 1], SEEDS[number : number + 1], SEEDED
        )
        assert torch.equal(alone[0], together[number])
    assert not torch.equal(together[0], together[4])


@pytest.mark.slow
def test_text_seed_and_picture_each_change_what_is_drawn() -> None:
    codes, of = pictures(4, 4)[:1], upscaler(OWN).upscale
    drawn = of(codes, [TEXTS[0]], [1], SEEDED)
    assert not torch.equal(of(codes, [TEXTS[1]], [1], SEEDED), drawn)
    assert not torch.equal(of(codes, [TEXTS[0]], [2], SEEDED), drawn)
    assert not torch.equal(of(codes.flip(1), [TEXTS[0]], [1], SEEDED), drawn)


@pytest.mark.slow
def test_guidance_goes_further_in_the_text_s_direction_and_leaves_given_codes_alone() -> None:
    codes, of = pictures(4, 6)[:2], upscaler(OWN).upscale
    guided = of(codes, TEXTS[:2], [1, 2], dataclasses.replace(SEEDED, guidance=3.0))
    level = of(codes, TEXTS[:2], [1, 2], dataclasses.replace(SEEDED, guidance=0.0))
    unconditional = of(codes, [TEXTS[0][:0]] * 2, [1, 2], SEEDED)
    assert torch.equal(level, unconditional)
    assert not torch.equal(guided, of(codes, TEXTS[:2], [1, 2], SEEDED))
    assert guided.min() >= 0


@pytest.mark.slow
def test_progress_counts_through_all_windows_and_both_stages() -> None:
    seen: list[tuple[int, int]] = []
    upscaler(OWN).upscale(
        pictures(4, 4)[:2], TEXTS[:2], [0, 1], GREEDY, factor=4, progress=lambda *counts: seen.append(counts)
    )
    done, total = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert len(set(total)) == 1
    assert done[-1] == total[0]
    assert done[0] < total[0] / 4


def test_released_weights_are_drawn_from_a_little_more_boldly() -> None:
    assert upscaler(RESTARTING).default_sampling == SamplingConfig(temperature=1.02)
    assert upscaler(OWN).default_sampling == SamplingConfig(temperature=0.0)


def test_what_cannot_be_upscaled_is_refused_in_one_line() -> None:
    codes, of = pictures(4, 4)[:1], upscaler(OWN).upscale
    with pytest.raises(UsageError, match=r"factor.* 2 or 4.* 3"):
        of(codes, [[1]], [0], factor=3)
    with pytest.raises(UsageError, match="no picture given"):
        of(codes[:0], [], [])
    with pytest.raises(UsageError, match="1 pictures, 1 texts and 2 seeds"):
        of(codes, [[1]], [0, 1])
    with pytest.raises(UsageError, match=r"seeds.* -1"):
        of(codes, [[1]], [-1])
    with pytest.raises(UsageError, match=r"3x4 codes.* 4x4"):
        of(codes[:, :3], [[1]], [0])
    with pytest.raises(CogViewError, match=r"image code 140 .*40"):
        of(codes % 2 + 139, [[1]], [0])
    with pytest.raises(CogViewError, match=r"text piece 20 .*20"):
        of(codes, [[20]], [0])


def test_a_transformer_that_was_not_trained_for_it_is_refused() -> None:
    transformer = random_transformer(OWN)
    wide = dataclasses.replace(OWN, grid_columns=5)
    runner = Runner.of(transformer)
    with pytest.raises(CogViewError, match=r"4x5 codes .*\d+ positions.* \d+"):
        SuperResolution(runner, wide)
    sparse = Transformer(dataclasses.replace(transformer.config, attention_pattern="three_region"))
    with pytest.raises(CogViewError, match="dense"):
        SuperResolution(Runner.of(sparse), OWN)
