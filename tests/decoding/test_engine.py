"""A seed draws the same codes alone, in any batch, and beside any other text."""

import copy
import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch

from cogview.decoding import engine, scheduler
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.forward import extend
from cogview.decoding.linear import can_pack
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import Event, Failed, Finished, Request, SequenceResult
from cogview.decoding.running_sequence import RunningSequence
from cogview.decoding.threads import ThreadChoice
from cogview.errors import UsageError
from cogview.generation import text_to_image as drawing
from cogview.generation.text_to_image import picture_request
from cogview.models.pretrained import regions_for
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer

VOCABULARY = Vocabulary(num_image_codes=100, num_text_pieces=50)
TEMPLATE = TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=4, grid_columns=4, max_text_pieces=6)
SAMPLING = SamplingConfig(top_k=40, top_p=0.95)
GREEDY = SamplingConfig(temperature=0.0)
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


def draw(
    runner: Runner,
    *texts: tuple[list[int], Iterable[int]],
    config: SamplingConfig = SAMPLING,
    template: TextToImageTemplate = TEMPLATE,
) -> torch.Tensor:
    """Draw the candidates of texts side by side."""
    requests = [
        picture_request(runner, template, pieces, seed, config) for pieces, seeds in texts for seed in seeds
    ]
    return drawing.draw(runner, requests)


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_a_seed_draws_the_same_codes_alone_and_in_any_batch(
    transformer: Transformer, dtype: torch.dtype, backend: str
) -> None:
    if backend == "packed" and not can_pack("cpu", dtype):
        pytest.skip(f"{dtype} weights cannot be packed here")
    runner = Runner.of(transformer, dtype=dtype, backend=backend, max_batch=20)
    seeds = range(20)
    together = draw(runner, ([3, 1], seeds))
    assert len({tuple(row.tolist()) for row in together}) == len(seeds)
    for start, stop in ((0, 1), (13, 14), (19, 20), (5, 7), (4, 7), (8, 13), (1, 18)):
        assert torch.equal(draw(runner, ([3, 1], seeds[start:stop])), together[start:stop])
    in_turn = Runner.of(transformer, dtype=dtype, backend=backend, max_batch=7)
    assert torch.equal(draw(in_turn, ([3, 1], seeds)), together)


@pytest.mark.slow
def test_a_text_is_read_once_for_all_its_candidates(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that come later begin with a copy, and run its last token alone."""
    nums: list[int] = []

    def counted(weights: object, parts: object, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        nums.append(len(tokens))
        return extend(weights, parts, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "extend", counted)
    runner = Runner.of(transformer, max_batch=7, proposer=Proposer(1))
    draw(runner, ([3, 1], range(20)), ([2, 1], range(3)), ([2], [0]))
    num_prefix = (5, 5, 4)
    assert sum(nums) == sum(num_prefix) + (20 - 1) + (3 - 1) + 24 * (16 - 1)


@pytest.mark.parametrize("image_positions", ["after_text", "fixed"])
@pytest.mark.slow
def test_several_texts_give_what_each_gives_alone(transformer: Transformer, image_positions: str) -> None:
    template = TextToImageTemplate(
        vocabulary=VOCABULARY,
        grid_rows=4,
        grid_columns=4,
        max_text_pieces=6,
        image_positions=image_positions,
    )
    texts = [([1, 2], (0, 1)), ([5], (2,)), ([7, 8], (0, 3, 4)), ([], (1,)), ([1, 2], (9,))]
    runner = Runner.of(transformer)
    alone = [draw(runner, text, template=template) for text in texts]
    assert torch.equal(draw(runner, *texts, template=template), torch.cat(alone))


@pytest.mark.slow
def test_text_and_seed_both_matter(transformer: Transformer) -> None:
    codes = draw(Runner.of(transformer), ([1, 2], [0, 1]), ([2, 1], [0]))
    assert codes.shape == (3, 16)
    assert codes.min() >= 0
    assert codes.max() < VOCABULARY.num_image_codes
    assert not torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


def test_the_most_probable_codes_are_those_of_the_plain_transformer(transformer: Transformer) -> None:
    codes = draw(Runner.of(transformer), ([4, 9, 2], [0]), config=GREEDY)[0]
    whole = TEMPLATE.build([4, 9, 2], codes.numpy())
    tokens, positions = (torch.from_numpy(array)[None] for array in (whole.tokens, whole.positions))
    with torch.no_grad():
        logits = transformer(tokens, positions)[0, :, : VOCABULARY.num_image_codes]
    start = len(TEMPLATE.prefix([4, 9, 2]).tokens)
    assert torch.equal(logits[start - 1 : start + 15].argmax(-1), codes)


@pytest.mark.parametrize("image_positions", ["after_text", "fixed"])
@pytest.mark.slow
def test_guided_codes_are_the_most_probable_of_two_plain_transformers(
    transformer: Transformer, image_positions: str
) -> None:
    """The slow twin: both sequences run whole, without a cache, and their logits put together by the formula."""
    template = dataclasses.replace(TEMPLATE, image_positions=image_positions)
    guidance, pieces = 2.5, np.array([4, 9, 2])
    config = SamplingConfig(temperature=0.0, guidance=guidance)
    codes = draw(Runner.of(transformer), (pieces.tolist(), [0]), config=config, template=template)[0]
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
@pytest.mark.slow
def test_a_seed_draws_the_same_guided_codes_in_any_company(
    transformer: Transformer, dtype: torch.dtype
) -> None:
    config = dataclasses.replace(SAMPLING, guidance=1.5)
    runner = Runner.of(transformer, dtype=dtype, max_batch=3)
    texts = [([3, 1], (0, 1, 2, 3)), ([1, 3], (0,)), ([], (5,))]
    together = draw(runner, *texts, config=config)
    assert torch.equal(torch.cat([draw(runner, text, config=config) for text in texts]), together)
    assert not torch.equal(draw(runner, texts[0]), together[:4])
    # Without a text there is nothing to go further from.
    assert torch.equal(draw(runner, texts[2]), together[5:])


@pytest.mark.usefixtures("num_threads")
@pytest.mark.slow
def test_three_regions_draw_the_same_codes_in_any_company(sparse_transformer: Transformer) -> None:
    config = dataclasses.replace(SAMPLING, guidance=1.5)
    runner = Runner.of(sparse_transformer, max_batch=3)
    texts = [([3, 1, 4, 1], (0, 1, 2, 3)), ([1, 3], (0,)), ([], (5,))]
    together = draw(runner, *texts, config=config)
    assert torch.equal(torch.cat([draw(runner, text, config=config) for text in texts]), together)
    assert not torch.equal(draw(runner, texts[0]), together[:4])


@pytest.mark.parametrize("pieces", [[], [4, 9], [4, 9, 2, 7, 7, 1]])
@pytest.mark.slow
def test_the_most_probable_codes_of_three_regions_are_those_of_the_plain_transformer(
    transformer: Transformer, sparse_transformer: Transformer, pieces: list[int]
) -> None:
    codes = draw(Runner.of(sparse_transformer), ([5, 5, 5], [1]), (pieces, [0]), config=GREEDY)[1]
    whole = TEMPLATE.build(pieces, codes.numpy())
    tokens, positions = (torch.from_numpy(array)[None] for array in (whole.tokens, whole.positions))
    with torch.no_grad():
        logits = sparse_transformer(tokens, positions)[0, :, : VOCABULARY.num_image_codes]
    start = len(TEMPLATE.prefix(pieces).tokens)
    assert torch.equal(logits[start - 1 : start + 15].argmax(-1), codes)
    dense = draw(Runner.of(transformer), (pieces, [0]), config=GREEDY)[0]
    assert not torch.equal(dense, codes)


def test_guidance_without_anything_to_compare_with_is_refused() -> None:
    with pytest.raises(UsageError, match="unconditional"):
        Request(
            context=drawing.text_context(TEMPLATE, [1]),
            legal=VOCABULARY.image_codes,
            sampling=SamplingConfig(guidance=2.0),
        )


def test_progress_counts_every_code_once(transformer: Transformer) -> None:
    calls: list[tuple[int, int]] = []
    runner = Runner.of(transformer, max_batch=3, proposer=Proposer(1))
    requests = [
        picture_request(runner, TEMPLATE, pieces, seed, SAMPLING)
        for pieces, seed in (([1], 0), ([1], 1), ([1, 2], 0))
    ]
    drawing.draw(runner, requests, lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert set(np.diff([0, *(done for done, _ in calls)])) <= {0, 1}
    assert calls[-1] == (3 * 16, 3 * 16)


def test_codes_need_not_be_the_first_tokens(transformer: Transformer) -> None:
    legal = range(20, 60)
    runner = Runner.of(transformer)
    requests = [
        dataclasses.replace(picture_request(runner, TEMPLATE, [1, 2], seed, SAMPLING), legal=legal)
        for seed in (0, 1)
    ]
    codes = drawing.draw(runner, requests)
    assert codes.max() < len(legal)
    assert torch.equal(codes[1:], drawing.draw(runner, requests[1:]))


def test_drawn_codes_can_be_trained_on(transformer: Transformer) -> None:
    codes = draw(Runner.of(transformer), ([1, 2], [0]))
    logits = transformer(codes, torch.arange(16)[None])
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], codes[0, 1:])
    torch.autograd.backward(loss)
    assert transformer.embedding.tokens.weight.grad is not None
    transformer.zero_grad()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_most_probable_codes_of_the_cpu(transformer: Transformer) -> None:
    texts = ([4, 9, 2], [0]), ([1], [0])
    on_cpu = draw(Runner.of(transformer), *texts, config=GREEDY)
    on_gpu = draw(Runner.of(copy.deepcopy(transformer).cuda()), *texts, config=GREEDY)
    assert torch.equal(on_gpu, on_cpu)
    in_half = Runner.of(copy.deepcopy(transformer).cuda(), dtype=torch.bfloat16)
    drawn = draw(in_half, ([1], range(5)))
    assert drawn.shape == (5, 16)
    assert drawn.max() < VOCABULARY.num_image_codes


def test_impossible_requests_are_refused(transformer: Transformer) -> None:
    runner = Runner.of(transformer)
    with pytest.raises(UsageError, match=r"seeds.* -1"):
        picture_request(runner, TEMPLATE, [1], -1, SAMPLING)
    with pytest.raises(UsageError, match="a request of 16 tokens has 5"):
        picture_request(runner, TEMPLATE, [1], 0, SAMPLING, given=np.zeros(5, dtype=np.int64))
    with pytest.raises(UsageError, match="max_batch"):
        Runner.of(transformer, max_batch=0)
    with pytest.raises(UsageError, match=r"max_window.* 1 and 64.* 0"):
        Proposer(0)
    request = picture_request(runner, TEMPLATE, [1], 0, SAMPLING)
    far = dataclasses.replace(request.context, next_positions=request.context.next_positions + 10_000)
    with pytest.raises(UsageError, match="position"):
        runner.engine.add(dataclasses.replace(request, context=far))
    unknown = dataclasses.replace(request.context, tokens=request.context.tokens + VOCABULARY.size)
    with pytest.raises(UsageError, match="token"):
        runner.engine.add(dataclasses.replace(request, context=unknown))
    assert runner.engine.is_idle


@pytest.mark.slow
def test_a_request_that_cannot_be_begun_fails_alone(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told, and the others go on."""

    def begun(request: Request, *rest: object) -> RunningSequence:
        if request.seed == 1:
            raise MemoryError("no room")
        return RunningSequence(request, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler, "RunningSequence", begun)
    runner = Runner.of(transformer)
    requests = [picture_request(runner, TEMPLATE, [1, 2], seed, SAMPLING) for seed in range(3)]
    numbers = [runner.engine.add(request) for request in requests]
    told: dict[int, list[Event]] = {number: [] for number in numbers}
    while not runner.engine.is_idle:
        for event in runner.engine.step():
            told[event.number].append(event)
    ends = [told[number][-1] for number in numbers]
    assert [type(each) for each in ends] == [Finished, Failed, Finished]
    assert runner.engine._scheduler.num_held_pages == 0
    with pytest.raises(MemoryError, match="no room"):
        runner.engine.run(requests)
    monkeypatch.setattr(scheduler, "RunningSequence", RunningSequence)
    again = runner.engine.run(requests)
    for end, result in zip(ends[::2], again[::2], strict=True):
        assert isinstance(end, Finished)
        assert isinstance(end.result, SequenceResult)
        assert isinstance(result, SequenceResult)
        np.testing.assert_array_equal(end.result.tokens, result.tokens)


def test_nothing_is_learnt_of_threads_from_a_pass_whose_kernels_are_new(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[int] = []
    monkeypatch.setattr(ThreadChoice, "learn", lambda self, num_threads, *_: learnt.append(num_threads))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runner = Runner.of(transformer, proposer=Proposer(1))
        draw(runner, ([3, 1], [0]))  # passes of up to eight tokens
        assert len(learnt) == runner.engine.num_passes - 1
        draw(runner, ([3, 1], [1]))
        assert len(learnt) == runner.engine.num_passes - 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("pattern", ["dense", "three_region"])
@pytest.mark.parametrize("num_given", [0, 40, 130])
@pytest.mark.slow
def test_scores_and_codes_are_those_of_one_by_one_whatever_is_given(
    transformer: Transformer, pattern: str, num_given: int
) -> None:
    """Of three regions' entries a pass may run but so many, known and guessed ones together."""
    template = dataclasses.replace(TEMPLATE, grid_rows=12, grid_columns=12)
    config = dataclasses.replace(transformer.config, num_positions=template.num_positions)
    if pattern == "three_region":
        regions = ThreeRegionConfig(block_tokens=2, key_window_blocks=2, num_text_and_pivot_tokens=20)
        config = dataclasses.replace(
            config, attention_pattern=pattern, three_region=regions_for(template, regions)
        )
    torch.manual_seed(0)
    large = Transformer(config).eval()
    generator = np.random.default_rng(num_given)
    given = np.where(generator.random(144) < 0.4, generator.integers(0, 100, 144), -1)
    given[:num_given] = generator.integers(0, 100, num_given)
    results: list[SequenceResult] = []
    for proposer in (Proposer(1), Proposer(is_eager=True), Proposer()):
        runner = Runner.of(large, proposer=proposer)
        request = picture_request(runner, template, [3, 1], 0, SAMPLING, given)
        for is_scored in (True, False):
            (result,) = runner.engine.run([dataclasses.replace(request, is_scored=is_scored)])
            assert isinstance(result, SequenceResult)
            results.append(result)
    for result in results[1:]:
        assert np.array_equal(result.tokens, results[0].tokens)
        if result.nats is not None:
            assert len(result.nats) == 144
            assert np.allclose(result.nats, results[0].nats, atol=1e-5)


@pytest.mark.slow
def test_what_is_counted_of_contexts_goes_with_their_requests(transformer: Transformer) -> None:
    runner = Runner.of(transformer, max_batch=2)
    engine_, numbers = runner.engine, itertools.count()

    def add() -> None:
        engine_.add(picture_request(runner, TEMPLATE, [next(numbers) % 40, 1], 0, SAMPLING))

    for _ in range(4):
        add()
    for _ in range(60):  # never idle
        if sum(isinstance(event, Finished) for event in engine_.step()):
            add()
    assert len(engine_._scheduler._prefix_uses) <= 8
