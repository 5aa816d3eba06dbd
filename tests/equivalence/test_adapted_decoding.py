"""A decoder with an adapter computes what the adapted transformer does, beside the base's prepared weights."""

import pytest
import torch

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.linear import can_pack
from cogview.generation.text_to_image import draw, picture_request
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, TransformerConfig
from cogview.transformer.model import Transformer
from passes import logits_in_pieces

VOCABULARY = Vocabulary(num_image_codes=48, num_text_pieces=40)
TEMPLATE = TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=4, grid_columns=4, max_text_pieces=6)
# One row of the adapter's own is a legal code, one is not.
ADAPTER = AdapterConfig(
    rank=5,
    trains_norms=True,
    num_positions=TEMPLATE.num_positions + 3,
    token_rows=(7, VOCABULARY.separator("BOI1")),
)
LEGAL = VOCABULARY.image_codes
NUM_PREFIX, NUM_TOKENS = 6, 24


@torch.no_grad()
def base_and_adapted(**changes: object) -> tuple[Transformer, AdaptedTransformer]:
    torch.manual_seed(0)
    config = TransformerConfig(
        num_layers=2,
        hidden_size=96,
        num_heads=4,
        vocabulary_size=VOCABULARY.size,
        num_positions=TEMPLATE.num_positions,
        **changes,  # type: ignore[arg-type]
    )
    base = Transformer(config).eval()
    for parameter in base.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted = AdaptedTransformer(base, ADAPTER)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return base, adapted


def tokens_and_positions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY.num_tokens, (3, NUM_TOKENS), generator=generator)
    tokens[:, 2] = VOCABULARY.separator("BOI1")
    tokens[:, -2] = 7
    return tokens, torch.randint(ADAPTER.num_positions or 0, (3, NUM_TOKENS), generator=generator)


def decoded(runner: Runner, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    sizes = [NUM_PREFIX, 3, *[1] * (NUM_TOKENS - NUM_PREFIX - 3)]
    return logits_in_pieces(runner, tokens, positions, LEGAL, sizes)[:, NUM_PREFIX - 1 :]


@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize("change", [{}, {"layer_norm": "post"}, {"qk_norm": True}], ids=str)
@torch.inference_mode()
@pytest.mark.slow
def test_decoded_logits_are_those_of_the_adapted_module(change: dict[str, object], backend: str) -> None:
    if backend == "packed" and not can_pack("cpu", torch.float32):
        pytest.skip("fp32 weights cannot be packed here")
    base, adapted = base_and_adapted(**change)
    tokens, positions = tokens_and_positions()
    exact = adapted(tokens, positions)[:, NUM_PREFIX - 1 :, LEGAL.start : LEGAL.stop]
    runner = Runner.of(base, backend=backend)
    beside = runner.adapted(adapted)
    found = decoded(beside, tokens, positions)
    assert (found - exact).abs().max() <= 1e-4 * exact.abs().max()
    merged = decoded(Runner.of(adapted.merged(), backend=backend), tokens, positions)
    assert (found - merged).abs().max() <= 1e-4 * exact.abs().max()
    assert torch.equal(decoded(Runner.of(adapted, backend=backend), tokens, positions), found)
    # The base itself is left as it was.
    positions = positions.clamp(max=TEMPLATE.num_positions - 1)
    alone = decoded(Runner.of(base, backend=backend), tokens, positions)
    assert torch.equal(decoded(runner, tokens, positions), alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.inference_mode()
@pytest.mark.slow
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    base, adapted = base_and_adapted()
    tokens, positions = tokens_and_positions()
    exact = adapted(tokens, positions)[:, NUM_PREFIX - 1 :, LEGAL.start : LEGAL.stop]
    found = decoded(Runner.of(base, dtype=dtype).adapted(adapted), tokens, positions)
    assert (found - exact).abs().max() <= 16 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.slow
def test_a_seed_draws_the_same_codes_in_any_company(dtype: torch.dtype) -> None:
    base, adapted = base_and_adapted()
    runner = Runner.of(base, dtype=dtype)
    beside = runner.adapted(adapted)
    config = SamplingConfig(temperature=1.0)

    def drawn(runner: Runner, *seeds: int) -> torch.Tensor:
        return draw(runner, [picture_request(runner, TEMPLATE, [3, 1, 2], seed, config) for seed in seeds])

    together = drawn(beside, *range(7))
    for seed in range(7):
        assert torch.equal(drawn(beside, seed)[0], together[seed])
    of_base = drawn(runner, *range(7))
    assert not torch.equal(together, of_base)
    # Base and adapter side by side.
    mixed = draw(
        runner,
        [
            picture_request(each, TEMPLATE, [3, 1, 2], seed, config)
            for seed in range(7)
            for each in (runner, beside)
        ],
    )
    assert torch.equal(mixed[::2], of_base)
    assert torch.equal(mixed[1::2], together)
