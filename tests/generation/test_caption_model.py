"""Texts written after pictures and their losses, against slow twins: whole sequences, without a cache, one by one."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from cogview.decoding import engine
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.forward import extend
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import WrittenText
from cogview.errors import CogViewError, UsageError
from cogview.generation.caption_model import CaptionModel
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, TransformerConfig
from cogview.transformer.model import Transformer

NUM_PIECES, ROOM = 5, 3
VOCABULARY = Vocabulary(num_image_codes=20, num_text_pieces=NUM_PIECES)
FROM_ZERO = CaptionTemplate(vocabulary=VOCABULARY, grid_rows=3, grid_columns=2, max_text_pieces=ROOM)
AS_DRAWN = dataclasses.replace(FROM_ZERO, positions="as_drawn")
CONFIG = TransformerConfig(
    num_layers=2,
    hidden_size=32,
    num_heads=2,
    vocabulary_size=VOCABULARY.size,
    num_positions=FROM_ZERO.num_positions,
)
PICTURES = [np.random.default_rng(number).integers(20, size=6) for number in range(5)]
GREEDY = SamplingConfig(temperature=0.0)


def transformer_of(seed: int = 0, config: TransformerConfig = CONFIG) -> Transformer:
    torch.manual_seed(seed)
    transformer = Transformer(config).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.mul_(4)  # far from level, so that texts depend on the picture and on their own pieces
    return transformer


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return transformer_of()


def captioner_of(
    transformer: Transformer, template: CaptionTemplate = FROM_ZERO, max_batch: int = 16
) -> CaptionModel:
    return CaptionModel(
        Runner.of(transformer, max_batch=max_batch, proposer=Proposer(is_eager=True)), template
    )


@pytest.fixture
def nums_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each pass."""
    nums: list[int] = []

    def counted(weights: object, parts: object, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        nums.append(len(tokens))
        return extend(weights, parts, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "extend", counted)
    return nums


def log_p(
    transformer: Transformer, template: CaptionTemplate, pieces: list[int], codes: np.ndarray
) -> torch.Tensor:
    """Return log p of every legal token after the picture and after each piece: logits of all, others masked."""
    sequence = template.build(pieces, codes)
    tokens, positions = (torch.from_numpy(array)[None] for array in (sequence.tokens, sequence.positions))
    with torch.no_grad():
        logits = transformer(tokens, positions)[0, template.num_prefix_tokens - 1 :].double()
    illegal = torch.ones(logits.shape[1], dtype=torch.bool)
    illegal[template.legal_tokens.start : template.legal_tokens.stop] = False
    whole = torch.log_softmax(logits.masked_fill(illegal, -torch.inf), dim=-1)
    return whole[:, template.legal_tokens.start : template.legal_tokens.stop]


def text_of(
    transformer: Transformer, template: CaptionTemplate, pieces: list[int], codes: np.ndarray
) -> WrittenText:
    costs = -log_p(transformer, template, pieces, codes)
    nats = sum(float(costs[place, piece]) for place, piece in enumerate(pieces))
    return WrittenText(pieces=tuple(pieces), pieces_nats=nats, end_nats=float(costs[len(pieces), NUM_PIECES]))


def assert_equal(got: WrittenText, wanted: WrittenText) -> None:
    assert got.pieces == wanted.pieces
    assert got.pieces_nats == pytest.approx(wanted.pieces_nats, abs=1e-4)
    assert got.end_nats == pytest.approx(wanted.end_nats, abs=1e-4)


@pytest.mark.parametrize("template", [FROM_ZERO, AS_DRAWN], ids=lambda each: each.positions)
@pytest.mark.parametrize(
    "change",
    [{}, {"attention": "relaxed"}, {"layer_norm": "post"}, {"qk_norm": True}],
    ids=str,
)
@pytest.mark.slow
def test_the_loss_is_the_papers_formula_pair_by_pair(template: CaptionTemplate, change: dict) -> None:
    transformer = transformer_of(1, dataclasses.replace(CONFIG, **change))
    texts = [[0], [4, 4, 1], [2, 3], [1, 0, 3], [3]]
    pairs = [(text, PICTURES[number]) for text in texts for number in (3, 0, 0, 2)]
    pairs += [([1, 1], PICTURES[4])]
    wanted = [text_of(transformer, template, *pair) for pair in pairs]
    for max_batch in (1, 3, 100):
        captioner = captioner_of(transformer, template, max_batch=max_batch)
        losses = captioner.losses(pairs)
        assert np.ptp(losses) > 0.5
        np.testing.assert_allclose(losses, [each.caption_loss for each in wanted], atol=1e-4)
        with_end = [-each.score() for each in wanted]
        np.testing.assert_allclose(captioner.losses(pairs, counts_end=True), with_end, atol=1e-4)


def test_a_picture_is_read_once_for_all_its_texts(transformer: Transformer, nums_run: list[int]) -> None:
    pairs = [([1, 2], PICTURES[number % 2]) for number in range(32)]
    losses = captioner_of(transformer, max_batch=10).losses(pairs)
    # The last piece has nothing after it to be foretold; texts that begin alike run [ROI1] again.
    assert sum(nums_run) == 2 * 11 + 30 * 2
    np.testing.assert_array_equal(losses, np.tile(losses[:2], 16))


@pytest.mark.parametrize("template", [FROM_ZERO, AS_DRAWN], ids=lambda each: each.positions)
@pytest.mark.slow
def test_a_wide_beam_finds_what_an_exhaustive_search_does(
    transformer: Transformer, template: CaptionTemplate
) -> None:
    captioner = captioner_of(transformer, template, max_batch=300)
    every = [
        [
            text_of(transformer, template, list(pieces), codes)
            for length in range(1, ROOM + 1)
            for pieces in itertools.product(range(NUM_PIECES), repeat=length)
        ]
        for codes in PICTURES[:2]
    ]
    for length_penalty in (0.0, 1.0):
        found = captioner.beam_search(PICTURES[:2], NUM_PIECES**ROOM, length_penalty=length_penalty)
        for got, wanted in zip(found, every, strict=True):
            wanted.sort(key=lambda text: -text.score(length_penalty))
            for one, other in zip(got[:20], wanted, strict=False):
                assert_equal(one, other)


def uncached_beam_search(
    transformer: Transformer, codes: np.ndarray, num_beams: int, room: int
) -> list[WrittenText]:
    """The search as its docstring says it, with a whole forward pass for each beam and step."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[WrittenText] = []
    for length in range(room + 1):
        after = [log_p(transformer, FROM_ZERO, pieces, codes)[-1] for pieces, _ in beams]
        if length:
            ended += [text_of(transformer, FROM_ZERO, pieces, codes) for pieces, _ in beams]
        longer = [
            ([*pieces, piece], total + float(row[piece]))
            for (pieces, total), row in zip(beams, after, strict=True)
            for piece in range(NUM_PIECES)
        ]
        beams = sorted(longer, key=lambda beam: -beam[1])[:num_beams]
        if length == room:
            break
    return sorted(ended, key=lambda text: -text.score())[:num_beams]


@pytest.mark.parametrize("num_beams", [1, 2, 3, 7])
@pytest.mark.slow
def test_a_beam_search_is_the_uncached_one(transformer: Transformer, num_beams: int) -> None:
    uncached = [uncached_beam_search(transformer, codes, num_beams, ROOM) for codes in PICTURES]
    for max_batch in (1, 2 * num_beams, 100):
        captioner = captioner_of(transformer, FROM_ZERO, max_batch=max_batch)
        found = captioner.beam_search(PICTURES, num_beams)
        assert len({texts[0].pieces for texts in found}) > 1
        for texts, wanted in zip(found, uncached, strict=True):
            assert len(texts) == len(wanted) == num_beams
            for got, each in zip(texts, wanted, strict=True):
                assert_equal(got, each)
    shorter = captioner.beam_search(PICTURES[:1], num_beams, max_pieces=2)[0]
    assert_equal(shorter[0], uncached_beam_search(transformer, PICTURES[0], num_beams, 2)[0])


def test_a_search_ends_when_nothing_can_overtake(
    transformer: Transformer, nums_run: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transformer that always ends after one piece is not asked for more."""
    captioner = captioner_of(transformer)
    end = FROM_ZERO.end_token - FROM_ZERO.legal_tokens.start
    first = captioner.beam_search(PICTURES[:1], 1, max_pieces=1)[0][0]
    nums_run.clear()
    variant = captioner.runner.variant
    head = variant.head(FROM_ZERO.legal_tokens)
    monkeypatch.setitem(
        variant._heads,
        FROM_ZERO.legal_tokens,
        lambda states: head(states).index_fill(1, torch.tensor([end]), 30.0),
    )
    texts = captioner.beam_search(PICTURES[:1], 1, length_penalty=0.0)[0]
    assert nums_run == [FROM_ZERO.num_prefix_tokens, 1]
    assert texts[0].pieces == first.pieces


def test_greedy_texts_take_the_most_probable_token(transformer: Transformer) -> None:
    for codes, (text,) in zip(
        PICTURES, captioner_of(transformer, FROM_ZERO).sample(PICTURES, [0], GREEDY), strict=True
    ):
        pieces: list[int] = []
        while len(pieces) < ROOM:
            last = log_p(transformer, FROM_ZERO, pieces, codes)[-1]
            choice = int((last if pieces else last[:NUM_PIECES]).argmax())
            if choice == NUM_PIECES:
                break
            pieces.append(choice)
        assert_equal(text, text_of(transformer, FROM_ZERO, pieces, codes))


@pytest.mark.slow
def test_a_seed_draws_the_same_text_in_any_company(transformer: Transformer) -> None:
    config = SamplingConfig(temperature=2.0)
    seeds = range(12)
    together = captioner_of(transformer, FROM_ZERO, max_batch=60).sample(PICTURES, seeds, config)
    assert len({text.pieces for texts in together for text in texts}) > 20
    assert captioner_of(transformer, FROM_ZERO, max_batch=7).sample(PICTURES, seeds, config) == together
    alone = captioner_of(transformer, FROM_ZERO).sample(PICTURES[3:4], [5], config)
    assert alone == [[together[3][5]]]
    for codes, texts in zip(PICTURES, together, strict=True):
        for text in texts:
            assert 1 <= len(text.pieces) <= ROOM
            assert 0 <= min(text.pieces) <= max(text.pieces) < NUM_PIECES
            assert_equal(text, text_of(transformer, FROM_ZERO, list(text.pieces), codes))


@pytest.mark.slow
def test_texts_are_drawn_as_often_as_they_are_probable(transformer: Transformer) -> None:
    """At two pieces at most, against the probabilities of all texts there are; no text is empty."""
    captioner = captioner_of(transformer, FROM_ZERO, max_batch=500)
    codes = PICTURES[1]
    drawn = captioner.sample([codes], range(500), SamplingConfig(), max_pieces=2)[0]
    firsts = torch.softmax(log_p(transformer, FROM_ZERO, [], codes)[0, :NUM_PIECES], 0)
    for first in range(NUM_PIECES):
        share = np.mean([text.pieces[0] == first for text in drawn])
        assert share == pytest.approx(float(firsts[first]), abs=0.05)
        ends = float(log_p(transformer, FROM_ZERO, [first], codes)[-1, NUM_PIECES].exp())
        both = np.mean([text.pieces == (first,) for text in drawn])
        assert both == pytest.approx(float(firsts[first]) * ends, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.slow
def test_an_adapter_writes_beside_its_bases_prepared_weights(dtype: torch.dtype) -> None:
    base = transformer_of(3)
    adapted = AdaptedTransformer(base, AdapterConfig(rank=3, token_rows=(FROM_ZERO.end_token, 21)))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    drawing = Runner.of(base, dtype=dtype)
    captioner = CaptionModel(drawing.adapted(adapted), FROM_ZERO)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for codes, texts in zip(PICTURES, captioner.beam_search(PICTURES, 2), strict=True):
        wanted = text_of(adapted, FROM_ZERO, list(texts[0].pieces), codes)
        assert texts[0].pieces_nats == pytest.approx(wanted.pieces_nats, abs=tolerance)
        assert texts[0].end_nats == pytest.approx(wanted.end_nats, abs=tolerance)
    assert drawing.variant.head(VOCABULARY.image_codes)(torch.zeros(1, 32)).shape == (1, 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_texts_of_the_cpu() -> None:
    on_cpu, on_gpu = (captioner_of(transformer_of().to(device)) for device in ("cpu", "cuda"))
    for found, wanted in zip(*(each.beam_search(PICTURES, 3) for each in (on_gpu, on_cpu)), strict=True):
        for got, each in zip(found, wanted, strict=True):
            assert_equal(got, each)
    pairs = [([1, 2], codes) for codes in PICTURES]
    np.testing.assert_allclose(on_gpu.losses(pairs), on_cpu.losses(pairs), atol=1e-4)


def test_impossible_requests_are_refused(transformer: Transformer) -> None:
    captioner = captioner_of(transformer, FROM_ZERO)
    with pytest.raises(UsageError, match="text 2 of 2"):
        captioner.losses([([1], PICTURES[0]), ([], PICTURES[0])])
    with pytest.raises(CogViewError, match="shape"):
        captioner.losses([([1], PICTURES[0][:5])])
    with pytest.raises(UsageError, match="num_beams"):
        captioner.beam_search(PICTURES, 0)
    with pytest.raises(UsageError, match="length_penalty"):
        captioner.beam_search(PICTURES, 1, length_penalty=-1.0)
    for max_pieces in (0, ROOM + 1):
        with pytest.raises(UsageError, match=r"max_pieces.* 1 and 3"):
            captioner.beam_search(PICTURES, 2, max_pieces)
    sparse = dataclasses.replace(CONFIG, attention_pattern="three_region")
    with pytest.raises(CogViewError, match="three_region"):
        captioner_of(Transformer(sparse))


def test_damaged_weights_are_one_line() -> None:
    transformer = transformer_of()
    with torch.no_grad():
        transformer.final_norm.weight.fill_(float("nan"))
    captioner = captioner_of(transformer, FROM_ZERO)
    for request in (
        lambda: captioner.losses([([1], PICTURES[0])]),
        lambda: captioner.beam_search(PICTURES, 2),
        lambda: captioner.sample(PICTURES, [0], GREEDY),
    ):
        with pytest.raises(CogViewError, match="infinite or NaN"):
            request()
