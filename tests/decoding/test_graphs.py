"""Steps of static shapes draw what the plain way draws, look at nothing on the device, and are captured by bucket.

Without CUDA the same steps are computed, not captured. Attention is summed in another order there (the fused kernel, on
other widths), so logits differ in their last bits; codes are compared, of seeds that are always the same, none of which
is a tie to six digits.
"""

import dataclasses
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cogview.decoding import graphs
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Engine, Runner
from cogview.decoding.graphs import StaticSteps
from cogview.decoding.pool import PAGE, PagePool, Row
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import Context, Failed, Request, SequenceResult
from cogview.decoding.running_sequence import Run
from cogview.decoding.static_step import Bucket, Step, StepInput, bucket_of
from cogview.decoding.weights import Weights
from cogview.errors import UsageError
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, TransformerConfig
from cogview.transformer.model import Transformer

LEGAL = range(8, 56)
CONFIG = TransformerConfig(
    num_layers=2, hidden_size=64, num_heads=2, vocabulary_size=64, num_positions=3 * PAGE
)
SAMPLINGS = [
    SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
    for temperature, top_k, top_p, guidance in (
        (1.0, None, 0.8, 1.5),
        (1.0, None, 1.0, 1.0),
        (0.7, 10, 0.9, 1.0),
        (1.3, 5, 1.0, 0.0),
        (0.0, None, 1.0, 2.0),
        (1.0, None, 1.0, 3.0),
    )
]


@torch.no_grad()
def transformer_of(device: str = "cpu") -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(CONFIG).eval()
    for name, parameter in transformer.named_parameters():
        parameter.mul_(1 if "norm" in name else 4)
    return transformer.to(device)


@torch.no_grad()
def adapted_of(transformer: Transformer) -> AdaptedTransformer:
    adapted = AdaptedTransformer(
        transformer, AdapterConfig(rank=3, trains_norms=True, token_rows=(7, 20)), seed=1
    )
    generator = torch.Generator().manual_seed(2)
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.device.type != "meta":
            drawn = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.add_(drawn.to(parameter.device))
    return adapted


RUNNER = Runner.of(transformer_of(), proposer=Proposer(is_eager=True))
ADAPTED = RUNNER.adapted(adapted_of(transformer_of()))


def request_of(
    sampling: SamplingConfig,
    seed: int = 0,
    *,
    num_context: int = 5,
    num_tokens: int = 8,
    num_given: int = 0,
    runner: Runner = RUNNER,
) -> Request:
    tokens = np.random.default_rng(num_context).integers(CONFIG.vocabulary_size, size=num_context)
    positions = np.arange(num_context + num_tokens)
    given_codes = np.full(num_tokens, -1)
    given_codes[:num_given] = np.arange(num_given) % len(LEGAL)
    return Request(
        context=Context(
            tokens=tokens, positions=positions[:num_context], next_positions=positions[num_context:]
        ),
        unconditional=Context(
            tokens=tokens[:1], positions=positions[:1], next_positions=positions[num_context:]
        ),
        legal=LEGAL,
        seed=seed,
        sampling=sampling,
        given=given_codes,
        num_columns=4,
        variant=runner.variant,
    )


def plainly(requests: list[Request]) -> list[np.ndarray]:
    """Return what requests draw one by one, the plain way, which does not depend on their company."""
    return codes_of(Engine(RUNNER.engine.weights, proposer=Proposer(1), steps="plain"), requests)


def codes_of(engine: Engine, requests: list[Request]) -> list[np.ndarray]:
    results = engine.run(requests)
    assert all(isinstance(result, SequenceResult) for result in results)
    return [result.tokens for result in results if isinstance(result, SequenceResult)]


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(np.stack(found), np.stack(wanted))


def static_engine(max_batch: int = 16, proposer: Proposer | None = None) -> Engine:
    return Engine(RUNNER.engine.weights, max_batch=max_batch, proposer=proposer, steps="static")


def steps_of(engine: Engine) -> StaticSteps:
    assert engine._static_steps is not None
    return engine._static_steps


ANY = st.tuples(
    st.sampled_from(SAMPLINGS),
    st.integers(0, 3),
    st.sampled_from([1, 5, 40, PAGE - 3]),
    st.sampled_from([0, 0, 3, 8]),
    st.booleans(),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.lists(ANY, min_size=1, max_size=6),
    st.sampled_from([1, 3, 16]),
    st.sampled_from([1, 4, 64]),
    st.booleans(),
)
@pytest.mark.slow
def test_static_steps_draw_what_the_plain_way_draws(
    drawn: list[tuple[SamplingConfig, int, int, int, bool]], max_batch: int, window: int, is_eager: bool
) -> None:
    """Of unlike lengths, settings and variants, guided or not, some of them given, over the end of pages."""
    requests = [
        request_of(
            sampling,
            seed,
            num_context=num_context,
            num_given=num_given,
            runner=ADAPTED if is_adapted else RUNNER,
        )
        for sampling, seed, num_context, num_given, is_adapted in drawn
    ]
    engine = static_engine(max_batch, Proposer(window, is_eager=is_eager))
    assert_same(codes_of(engine, requests), plainly(requests))
    assert engine._scheduler.num_held_pages == 1  # the spare one


def test_all_passes_that_draw_pictures_of_one_variant_are_steps() -> None:
    """The reading of a short text among them; reading a long one is not."""
    requests = [request_of(SAMPLINGS[0], seed, num_context=num) for seed, num in enumerate((5, 5, 40))]
    engine = static_engine()
    drawn = codes_of(engine, requests)
    assert steps_of(engine).num_passes == engine.num_passes > 0
    assert len({tuple(each) for each in drawn}) == 3
    long = request_of(SAMPLINGS[0], 7, num_context=200)
    engine.num_passes = steps_of(engine).num_passes = 0
    assert_same(codes_of(engine, [long]), plainly([long]))
    assert steps_of(engine).num_passes == engine.num_passes - 1


@pytest.mark.slow
def test_what_no_step_can_run_goes_the_plain_way() -> None:
    """Each of these gives what it gives without steps, to the bit."""
    plain = request_of(SAMPLINGS[1], 5)
    inverted = dataclasses.replace(plain, sampling=dataclasses.replace(SAMPLINGS[2], sampler="inversion"))
    odd = [
        inverted,
        dataclasses.replace(plain, is_scored=True),
        dataclasses.replace(plain, end=3),
        dataclasses.replace(plain, allowed=np.arange(len(LEGAL)) % 2 == 0),
    ]
    for request in odd:
        engine = static_engine()
        (found,), (wanted,) = engine.run([request]), Engine(RUNNER.engine.weights).run([request])
        assert isinstance(found, SequenceResult)
        assert isinstance(wanted, SequenceResult)
        np.testing.assert_array_equal(found.tokens, wanted.tokens)
        if wanted.nats is not None:
            np.testing.assert_array_equal(found.nats, wanted.nats)
        assert steps_of(engine).num_passes == 0


@pytest.mark.slow
def test_requests_of_two_variants_are_two_steps_and_of_more_none() -> None:
    """Nor are requests of different heads one."""
    of_base, of_adapter = request_of(SAMPLINGS[1], 5), request_of(SAMPLINGS[0], 5, runner=ADAPTED)
    of_less = dataclasses.replace(request_of(SAMPLINGS[1], 6, num_context=4), legal=range(8, 40))
    for requests, are_steps in (
        ([of_base, of_adapter], True),
        ([of_base, of_less], True),
        ([of_base, of_adapter, of_less], False),
    ):
        engine = static_engine(proposer=Proposer(1))
        assert_same(codes_of(engine, requests), plainly(requests))
        assert steps_of(engine).num_passes == (engine.num_passes if are_steps else 0)


@pytest.mark.slow
def test_a_request_that_fails_leaves_others_alone_and_nothing_behind() -> None:
    """Not in the spare page either, into which its padding was stored."""
    broken = adapted_of(transformer_of())
    with torch.no_grad():
        broken.blocks[1].attention_input_norm.weight.fill_(torch.nan)
    engine = static_engine()
    for sampling in SAMPLINGS[:2]:
        number = engine.add(request_of(sampling, runner=RUNNER.adapted(broken)))
        (event,) = engine.step()
        assert isinstance(event, Failed)
        assert event.number == number
        assert "infinite or NaN" in str(event.error)
        requests = [request_of(sampling, seed, num_context=5 * seed + 1) for seed in range(3)]
        assert_same(codes_of(engine, requests), plainly(requests))
    assert steps_of(engine).num_passes == engine.num_passes


class Recorded:
    """Repeats what was recorded, as a graph does."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.replay = work


class CountingRecorder:
    """Does what recording does, without CUDA."""

    def __init__(self) -> None:
        self.num = 0

    def record(self, work: Callable[[], None]) -> Recorded:
        self.num += 1
        work()
        return Recorded(work)


class FailingRecorder:
    def record(self, work: Callable[[], None]) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing")


def recording_engine(monkeypatch: pytest.MonkeyPatch, recorder: object, max_batch: int = 16) -> Engine:
    """Return an engine that captures, by what stands in for CUDA."""
    engine = Engine(RUNNER.engine.weights, max_batch=max_batch, proposer=Proposer(1), steps="static")
    monkeypatch.setattr(engine, "_static_steps", None)
    monkeypatch.setattr(
        "cogview.decoding.engine.static_steps",
        lambda kind, weights, pool: None if kind == "plain" else StaticSteps(weights, pool, recorder),
    )
    return engine


@pytest.mark.slow
def test_a_bucket_is_captured_when_it_is_met_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = CountingRecorder()
    engine = recording_engine(monkeypatch, recorder)
    requests = [request_of(SAMPLINGS[0], seed) for seed in range(3)]
    wanted = plainly(requests)
    assert_same(codes_of(engine, requests), wanted)
    steps = steps_of(engine)
    assert_same(codes_of(engine, requests), wanted)
    assert steps.num_captured == recorder.num == len(steps._steps) > 1
    assert all(step.graph is not None for step in steps._steps.values())


@pytest.mark.slow
def test_buckets_are_few_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_STEPS", 2)
    engine = recording_engine(monkeypatch, CountingRecorder())
    for num in (1, 2, 4, 1, 2, 4):
        requests = [request_of(SAMPLINGS[1], seed) for seed in range(num)]
        assert_same(codes_of(engine, requests), plainly(requests))
        assert len(steps_of(engine)._steps) <= 2


@pytest.mark.slow
def test_graphs_are_forgotten_when_the_pool_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = CountingRecorder()
    engine = recording_engine(monkeypatch, recorder, max_batch=2)
    short = [request_of(SAMPLINGS[0], seed) for seed in range(2)]
    for _ in range(2):
        codes_of(engine, short)
    before, keys = recorder.num, engine._scheduler.pool.keys
    assert before
    long = [request_of(SAMPLINGS[0], seed, num_context=PAGE - 2) for seed in range(2)]
    assert_same(codes_of(engine, long), plainly(long))
    assert engine._scheduler.pool.keys is not keys, "the pool has grown"
    for _ in range(2):
        assert_same(codes_of(engine, short), plainly(short))
    assert recorder.num > before


@pytest.mark.slow
def test_where_nothing_can_be_captured_that_is_said_once_and_steps_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = recording_engine(monkeypatch, FailingRecorder())
    requests = [request_of(SAMPLINGS[0], seed) for seed in range(2)]
    with pytest.warns(UserWarning, match="not permitted when stream is capturing") as told:
        found = [codes_of(engine, requests) for _ in range(2)]
    assert len(told) == 1
    assert steps_of(engine).num_captured == 0
    for codes in found:
        assert_same(codes, plainly(requests))


def test_the_spare_page_takes_none_from_a_full_batch() -> None:
    """Else the pool would grow by half, to another place."""
    engine = static_engine(max_batch=4, proposer=Proposer(1))
    requests = [request_of(SAMPLINGS[0], seed, num_context=PAGE - 3) for seed in range(5)]
    with engine.session() as session:
        for request in requests:
            session.add(request)
        session.step()
        pool, keys = engine._scheduler.pool, engine._scheduler.pool.keys
        for _ in session.events():
            assert engine._scheduler.pool.keys is keys
    assert pool.num_pages == 5 * (2 + 1) + 1  # of a context and the unconditional one


def test_graphs_without_cuda_are_refused() -> None:
    with pytest.raises(UsageError, match=r"CUDA.* cpu"):
        Engine(RUNNER.engine.weights, steps="graphs")


def shares_for(nums: list[tuple[int, int, int]], is_guided: bool) -> list[StepInput]:
    """Return requests of rows that hold so many tokens, of so many pages, and run so many more."""
    shares = []
    for num_held, num_pages, num_new in nums:
        row = object.__new__(Row)
        row.length, row.pages = min(num_held, num_pages * PAGE - num_new), list(range(num_pages))
        run = Run(row=row, tokens=np.zeros(num_new, dtype=np.int64), positions=np.arange(num_new))
        shares.append(
            StepInput(
                runs=[run, run] if is_guided else [run],
                places=np.arange(num_new),
                states=[np.arange(num_new)] * (1 + is_guided),
                sampling=SAMPLINGS[0],
                key=(1, 2),
            )
        )
    return shares


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1200), st.integers(1, 9), st.integers(1, 70)), min_size=1, max_size=40),
    st.booleans(),
)
@pytest.mark.slow
def test_a_bucket_has_room_for_its_pass_and_little_more(
    nums: list[tuple[int, int, int]], is_guided: bool
) -> None:
    shares = shares_for(nums, is_guided)
    bucket = bucket_of(RUNNER.variant, LEGAL, shares)
    longest, num_tokens = max(num for *_, num in nums), (1 + is_guided) * sum(num for *_, num in nums)
    if bucket is None:
        at_most = (1 + is_guided) * 4 * len(nums) * longest
        assert longest > 64 or at_most > 1024 or at_most > 4 * num_tokens
        return
    assert len(nums) <= bucket.num_requests < 2 * len(nums)
    assert longest <= bucket.num_new < 2 * longest
    seen = max(-(-(run.row.length + len(run.tokens)) // PAGE) for share in shares for run in share.runs)
    assert seen <= bucket.num_pages <= min(2 * seen, max(num for _, num, _ in nums))
    assert bucket.num_rows * bucket.num_new <= max(256, 4 * num_tokens)
    assert bucket.num_rows * bucket.num_new <= 1024


class NothingOnTheHost(TorchDispatchMode):
    """Refuses tensors that are not on a device: what an operator would have to copy there in the midst of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not isinstance(leaf, torch.Tensor) or leaf.device.type == "meta", operator
        self.num += 1
        return result


@pytest.mark.parametrize(("is_adapted", "is_cut"), [(False, False), (True, True)])
@torch.no_grad()  # in inference mode composite operators would not show what they are made of
@pytest.mark.slow
def test_a_step_reads_nothing_from_its_device_and_sends_nothing_there(is_adapted: bool, is_cut: bool) -> None:
    """On a device without values each look at one is an error, as in the capture of a graph."""
    transformer = transformer_of("meta")
    weights = Weights(transformer)
    variant = weights.variant(adapted_of(transformer)) if is_adapted else weights.base
    pool = PagePool(CONFIG, 9, device="meta")
    bucket = Bucket(
        variant=variant,
        legal=LEGAL,
        num_requests=2,
        num_new=4,
        num_pages=2,
        is_guided=True,
        is_cut=is_cut,
    )
    step = Step(bucket, weights, pool)
    step.fill(shares_for([(7, 2, 3), (130, 2, 1)], is_guided=True), spare_page=8)
    step.compute()  # prepares the head
    with NothingOnTheHost() as mode:
        step.compute()
    assert mode.num > 50
    with pytest.raises(RuntimeError):
        pool.keys.sum().item()
    on_host = torch.ones(())
    with pytest.raises(AssertionError, match="add"), NothingOnTheHost():
        torch.add(pool.keys, on_host)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_graphs_draw_what_kernels_launched_one_by_one_draw(dtype: torch.dtype) -> None:
    """Also what the same steps draw without a capture: to the bit, in each dtype; and while other threads compute."""
    runner = Runner.of(transformer_of("cuda"), dtype=dtype)
    adapted = runner.adapted(adapted_of(transformer_of("cuda")))
    requests = [
        request_of(sampling, seed, num_context=num_context, runner=each)
        for seed, sampling in enumerate(SAMPLINGS)
        for num_context, each in ((5, runner), (PAGE - 3, runner), (40, adapted))
    ]
    is_over = threading.Event()

    def compute() -> None:
        x = torch.ones(64, 64, device="cuda")
        while not is_over.is_set():
            (x @ x).sum().item()

    other = threading.Thread(target=compute)
    other.start()
    try:
        found = {}
        for steps in ("graphs", "static", "plain"):
            # One by one, so that the buckets do not depend on what has been learnt.
            engine = Engine(runner.engine.weights, max_batch=5, proposer=Proposer(1), steps=steps)
            found[steps] = [codes_of(engine, requests) for _ in range(3)][-1]
            if steps == "graphs":
                assert steps_of(engine).num_captured >= 3
                assert steps_of(engine).num_captured >= len(steps_of(engine)._steps) / 2
    finally:
        is_over.set()
        other.join()
    assert_same(found["graphs"], found["static"])
    if dtype == torch.float32:
        assert_same(found["graphs"], found["plain"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_outlive_a_pool_that_moves_on_a_gpu() -> None:
    runner = Runner.of(transformer_of("cuda"))
    engine = Engine(runner.engine.weights, max_batch=2, proposer=Proposer(1))
    requests = [
        request_of(SAMPLINGS[0], seed, num_context=num, runner=runner)
        for num in (5, 5, PAGE - 2, 200, 5)
        for seed in range(2)
    ]
    plain = Engine(runner.engine.weights, proposer=Proposer(1), steps="plain")
    for _ in range(2):
        assert_same(codes_of(engine, requests), codes_of(plain, requests))
    assert steps_of(engine).num_captured > 2
