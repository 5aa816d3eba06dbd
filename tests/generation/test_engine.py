"""A seed draws the same codes alone, in any batch, and beside any other text."""

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cogview.errors import UsageError
from cogview.generation.config import SamplingConfig
from cogview.generation.engine import Engine, Prompt
from cogview.generation.linear import can_pack
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer

VOCABULARY = Vocabulary(num_image_codes=100, num_text_pieces=50)
TEMPLATE = TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=4, grid_columns=4, max_text_pieces=6)
SAMPLING = SamplingConfig(top_k=40, top_p=0.95)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        num_layers=2,
        hidden_size=64,
        num_heads=4,
        vocabulary_size=VOCABULARY.size,
        num_positions=TEMPLATE.num_positions,
    )
    transformer = Transformer(config).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.mul_(3)  # far from level, so that draws depend on the text and on each other
    return transformer


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("num_tokens", [5, 63, 64, 290, 1040])
def test_attention_over_cached_keys_has_the_same_bits_in_any_batch(
    num_tokens: int, dtype: torch.dtype
) -> None:
    """At heads of 64, where products large enough for the library's kernels are made."""
    transformer = Transformer(
        TransformerConfig(
            num_layers=1,
            hidden_size=128,
            num_heads=2,
            vocabulary_size=VOCABULARY.size,
            num_positions=num_tokens + 1,
        )
    )
    decoder = Engine(transformer, VOCABULARY.image_codes, dtype=dtype).decoder
    cache = decoder.new_cache(16, num_tokens + 1)
    assert cache.keys.dtype == dtype
    generator = torch.Generator().manual_seed(num_tokens)
    cache.keys.normal_(generator=generator)
    cache.values.normal_(generator=generator)
    tokens = torch.randint(100, (16,), generator=generator)
    positions = torch.full((16,), num_tokens)

    def states(rows: slice) -> torch.Tensor:
        part = decoder.new_cache(len(tokens[rows]), num_tokens + 1)
        heads = slice(2 * rows.start, 2 * rows.stop)
        part.keys.copy_(cache.keys[:, heads])
        part.values.copy_(cache.values[:, heads])
        part.length = num_tokens
        with torch.inference_mode():
            return decoder.decode(tokens[rows], positions[rows], part)

    together = states(slice(0, 16))
    for start, stop in ((0, 1), (7, 8), (3, 5), (0, 3), (9, 16)):
        assert torch.equal(states(slice(start, stop)), together[start:stop])


@pytest.fixture(scope="module")
def sparse_transformer(transformer: Transformer) -> Transformer:
    """The same weights, and a window so short that pivots matter."""
    regions = ThreeRegionConfig(
        block_tokens=2,
        key_window_blocks=2,
        num_text_and_pivot_tokens=12,
        image_start_token=VOCABULARY.separator("BOI1"),
        num_image_tokens=TEMPLATE.num_codes_per_image,
    )
    config = dataclasses.replace(transformer.config, attention_pattern="three_region", three_region=regions)
    sparse = Transformer(config).eval()
    sparse.load_state_dict(transformer.state_dict())
    return sparse


def prompt(pieces: list[int], *seeds: int) -> Prompt:
    return Prompt.of(TEMPLATE, pieces, seeds)


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_seed_draws_the_same_codes_alone_and_in_any_batch(
    transformer: Transformer, dtype: torch.dtype, backend: str
) -> None:
    if backend == "packed" and not can_pack("cpu", dtype):
        pytest.skip(f"{dtype} weights cannot be packed here")
    engine = Engine(transformer, VOCABULARY.image_codes, dtype=dtype, backend=backend, max_batch=20)
    seeds = range(20)
    together = engine.generate([prompt([3, 1], *seeds)], SAMPLING)
    assert len({tuple(row.tolist()) for row in together}) == len(seeds)
    for start, stop in ((0, 1), (13, 14), (19, 20), (5, 7), (4, 7), (8, 13), (1, 18)):
        part = engine.generate([prompt([3, 1], *seeds[start:stop])], SAMPLING)
        assert torch.equal(part, together[start:stop])
    in_turn = Engine(transformer, VOCABULARY.image_codes, dtype=dtype, backend=backend, max_batch=7)
    assert torch.equal(in_turn.generate([prompt([3, 1], *seeds)], SAMPLING), together)


def test_a_text_is_read_once_for_all_its_candidates(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(transformer, VOCABULARY.image_codes, max_batch=7)
    read: list[list[int]] = []
    prefill = engine.decoder.prefill

    def counted(tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        read.extend(tokens.tolist())
        return prefill(tokens, *rest)

    monkeypatch.setattr(engine.decoder, "prefill", counted)
    prompts = [prompt([3, 1], *range(20)), prompt([2, 1], *range(3)), prompt([2], 0)]
    engine.generate(prompts, SAMPLING)
    assert read == [each.prefix.tokens.tolist() for each in prompts]


@pytest.mark.parametrize("image_positions", ["after_text", "fixed"])
def test_several_texts_give_what_each_gives_alone(transformer: Transformer, image_positions: str) -> None:
    template = TextToImageTemplate(
        vocabulary=VOCABULARY,
        grid_rows=4,
        grid_columns=4,
        max_text_pieces=6,
        image_positions=image_positions,
    )
    texts = [([1, 2], (0, 1)), ([5], (2,)), ([7, 8], (0, 3, 4)), ([], (1,)), ([1, 2], (9,))]
    prompts = [Prompt.of(template, pieces, seeds) for pieces, seeds in texts]
    engine = Engine(transformer, VOCABULARY.image_codes)
    alone = [engine.generate([one], SAMPLING) for one in prompts]
    assert torch.equal(engine.generate(prompts, SAMPLING), torch.cat(alone))


def test_text_and_seed_both_matter(transformer: Transformer) -> None:
    engine = Engine(transformer, VOCABULARY.image_codes)
    codes = engine.generate([prompt([1, 2], 0, 1), prompt([2, 1], 0)], SAMPLING)
    assert codes.shape == (3, 16)
    assert codes.min() >= 0
    assert codes.max() < VOCABULARY.num_image_codes
    assert not torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


def test_the_most_probable_codes_are_those_of_the_plain_transformer(transformer: Transformer) -> None:
    text = prompt([4, 9, 2], 0)
    codes = Engine(transformer, VOCABULARY.image_codes).generate([text], SamplingConfig(temperature=0.0))[0]
    whole = TEMPLATE.build([4, 9, 2], codes.numpy())
    tokens, positions = (torch.from_numpy(array)[None] for array in (whole.tokens, whole.positions))
    with torch.no_grad():
        logits = transformer(tokens, positions)[0, :, : VOCABULARY.num_image_codes]
    start = len(text.prefix.tokens)
    assert torch.equal(logits[start - 1 : start + 15].argmax(-1), codes)


@pytest.mark.parametrize("image_positions", ["after_text", "fixed"])
def test_guided_codes_are_the_most_probable_of_two_plain_transformers(
    transformer: Transformer, image_positions: str
) -> None:
    """The slow twin: both sequences run whole, without a cache, and their logits put together by the formula."""
    template = dataclasses.replace(TEMPLATE, image_positions=image_positions)
    guidance, pieces = 2.5, np.array([4, 9, 2])
    textless = Prompt.of(template, pieces[:0], (0,))
    text = Prompt.of(template, pieces, (0,), textless)
    config = SamplingConfig(temperature=0.0, guidance=guidance)
    codes = Engine(transformer, VOCABULARY.image_codes).generate([text], config)[0]
    logits = []
    for part in (pieces, pieces[:0]):
        whole = template.build(part, codes.numpy())
        tokens, positions = (torch.from_numpy(array)[None] for array in (whole.tokens, whole.positions))
        start = len(template.prefix(part).tokens)
        with torch.no_grad():
            every = transformer(tokens, positions)[0, :, : VOCABULARY.num_image_codes]
        logits.append(every[start - 1 : start + 15])
    with_text, without = logits
    assert torch.equal((without + guidance * (with_text - without)).argmax(-1), codes)
    assert not torch.equal(with_text.argmax(-1), codes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_seed_draws_the_same_guided_codes_in_any_company(
    transformer: Transformer, dtype: torch.dtype
) -> None:
    config = dataclasses.replace(SAMPLING, guidance=1.5)
    engine = Engine(transformer, VOCABULARY.image_codes, dtype=dtype, max_batch=3)
    # Not every prompt need be compared with the same one, nor with one of the same length.
    texts = [
        Prompt.of(TEMPLATE, pieces, seeds, textless)
        for pieces, seeds, textless in (
            ([3, 1], (0, 1, 2, 3), prompt([], 0)),
            ([1, 3], (0,), prompt([2], 0)),
            ([], (5,), prompt([], 0)),
        )
    ]
    together = engine.generate(texts, config)
    assert torch.equal(torch.cat([engine.generate([text], config) for text in texts]), together)
    assert not torch.equal(engine.generate(texts[:1], SAMPLING), together[:4])
    # Without a text there is nothing to go further from.
    assert torch.equal(engine.generate(texts[2:], SAMPLING), together[5:])


@pytest.mark.usefixtures("num_threads")
def test_three_regions_draw_the_same_codes_in_any_company(sparse_transformer: Transformer) -> None:
    config = dataclasses.replace(SAMPLING, guidance=1.5)
    engine = Engine(sparse_transformer, VOCABULARY.image_codes, max_batch=3)
    textless = prompt([], 0)
    texts = [
        Prompt.of(TEMPLATE, pieces, seeds, textless)
        for pieces, seeds in (([3, 1, 4, 1], (0, 1, 2, 3)), ([1, 3], (0,)), ([], (5,)))
    ]
    together = engine.generate(texts, config)
    assert torch.equal(torch.cat([engine.generate([text], config) for text in texts]), together)
    assert not torch.equal(engine.generate(texts[:1], SAMPLING), together[:4])


@pytest.mark.parametrize("pieces", [[], [4, 9], [4, 9, 2, 7, 7, 1]])
def test_the_most_probable_codes_of_three_regions_are_those_of_the_plain_transformer(
    transformer: Transformer, sparse_transformer: Transformer, pieces: list[int]
) -> None:
    greedy, text = SamplingConfig(temperature=0.0), prompt(pieces, 0)
    company = prompt([5, 5, 5], 1)
    codes = Engine(sparse_transformer, VOCABULARY.image_codes).generate([company, text], greedy)[1]
    whole = TEMPLATE.build(pieces, codes.numpy())
    tokens, positions = (torch.from_numpy(array)[None] for array in (whole.tokens, whole.positions))
    with torch.no_grad():
        logits = sparse_transformer(tokens, positions)[0, :, : VOCABULARY.num_image_codes]
    start = len(text.prefix.tokens)
    assert torch.equal(logits[start - 1 : start + 15].argmax(-1), codes)
    dense = Engine(transformer, VOCABULARY.image_codes).generate([text], greedy)[0]
    assert not torch.equal(dense, codes)


def test_guidance_without_anything_to_compare_with_is_refused(transformer: Transformer) -> None:
    engine = Engine(transformer, VOCABULARY.image_codes)
    with pytest.raises(UsageError, match="textless"):
        engine.generate([prompt([1], 0)], SamplingConfig(guidance=2.0))


def test_progress_counts_every_code_once(transformer: Transformer) -> None:
    calls: list[tuple[int, int]] = []
    engine = Engine(transformer, VOCABULARY.image_codes, max_batch=3)
    engine.generate(
        [prompt([1], 0, 1, 2), prompt([1, 2], 0)],
        SAMPLING,
        progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert set(np.diff([0, *done])) == {1, 3}
    assert calls[-1] == (4 * 16, 4 * 16)
    assert len(calls) == 2 * 16


def test_codes_need_not_be_the_first_tokens(transformer: Transformer) -> None:
    legal = range(20, 60)
    codes = Engine(transformer, legal).generate([prompt([1, 2], 0, 1)], SAMPLING)
    assert codes.max() < len(legal)


def test_drawn_codes_can_be_trained_on(transformer: Transformer) -> None:
    codes = Engine(transformer, VOCABULARY.image_codes).generate([prompt([1, 2], 0)], SAMPLING)
    logits = transformer(codes, torch.arange(16)[None])
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], codes[0, 1:])
    torch.autograd.backward(loss)
    assert transformer.embedding.tokens.weight.grad is not None
    transformer.zero_grad()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_most_probable_codes_of_the_cpu(transformer: Transformer) -> None:
    greedy = SamplingConfig(temperature=0.0)
    texts = [prompt([4, 9, 2], 0), prompt([1], 0)]
    on_cpu = Engine(transformer, VOCABULARY.image_codes).generate(texts, greedy)
    on_gpu = Engine(copy.deepcopy(transformer).cuda(), VOCABULARY.image_codes).generate(texts, greedy)
    assert torch.equal(on_gpu, on_cpu)
    in_half = Engine(copy.deepcopy(transformer).cuda(), VOCABULARY.image_codes, dtype=torch.bfloat16)
    drawn = in_half.generate([prompt([1], *range(5))], SAMPLING)
    assert drawn.shape == (5, 16)
    assert drawn.max() < VOCABULARY.num_image_codes


def test_impossible_requests_are_refused(transformer: Transformer) -> None:
    with pytest.raises(UsageError, match="seeds"):
        prompt([1])
    with pytest.raises(UsageError, match="seeds"):
        prompt([1], 3, -1)
    with pytest.raises(UsageError, match="max_batch"):
        Engine(transformer, VOCABULARY.image_codes, max_batch=0)
