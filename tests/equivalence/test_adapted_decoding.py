"""A decoder with an adapter computes what the adapted transformer does, beside the base's prepared weights."""

import pytest
import torch

from cogview.generation.config import SamplingConfig
from cogview.generation.decoder import Decoder
from cogview.generation.engine import Engine, Prompt
from cogview.generation.linear import can_pack
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, TransformerConfig
from cogview.transformer.model import Transformer

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


def decoded(decoder: Decoder, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    cache = decoder.new_cache(len(tokens), NUM_TOKENS)
    logits = [decoder.logits(decoder.prefill(tokens[:, :NUM_PREFIX], positions[:, :NUM_PREFIX], cache))]
    for place in range(NUM_PREFIX, NUM_TOKENS):
        logits.append(decoder.logits(decoder.decode(tokens[:, place], positions[:, place], cache)))
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("backend", ["packed", "plain"])
@pytest.mark.parametrize("change", [{}, {"layer_norm": "post"}, {"qk_norm": True}], ids=str)
@torch.inference_mode()
def test_decoded_logits_are_those_of_the_adapted_module(change: dict[str, object], backend: str) -> None:
    if backend == "packed" and not can_pack("cpu", torch.float32):
        pytest.skip("fp32 weights cannot be packed here")
    base, adapted = base_and_adapted(**change)
    tokens, positions = tokens_and_positions()
    exact = adapted(tokens, positions)[:, NUM_PREFIX - 1 :, LEGAL.start : LEGAL.stop]
    decoder = Decoder(base, LEGAL, backend=backend)
    beside = decoder.adapted(adapted)
    found = decoded(beside, tokens, positions)
    assert (found - exact).abs().max() <= 1e-4 * exact.abs().max()
    merged = decoded(Decoder(adapted.merged(), LEGAL, backend=backend), tokens, positions)
    assert (found - merged).abs().max() <= 1e-4 * exact.abs().max()
    assert torch.equal(decoded(Decoder(adapted, LEGAL, backend=backend), tokens, positions), found)
    # The base's own decoder is left as it was.
    positions = positions.clamp(max=TEMPLATE.num_positions - 1)
    alone = decoded(Decoder(base, LEGAL, backend=backend), tokens, positions)
    assert torch.equal(decoded(decoder, tokens, positions), alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    base, adapted = base_and_adapted()
    tokens, positions = tokens_and_positions()
    exact = adapted(tokens, positions)[:, NUM_PREFIX - 1 :, LEGAL.start : LEGAL.stop]
    found = decoded(Decoder(base, LEGAL, dtype=dtype).adapted(adapted), tokens, positions)
    assert (found - exact).abs().max() <= 16 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_seed_draws_the_same_codes_in_any_company(dtype: torch.dtype) -> None:
    base, adapted = base_and_adapted()
    engine = Engine(base, LEGAL, dtype=dtype).adapted(adapted)
    config = SamplingConfig(temperature=1.0)

    def drawn(*seeds: int) -> torch.Tensor:
        return engine.generate([Prompt.of(TEMPLATE, [3, 1, 2], seeds)], config)

    together = drawn(*range(7))
    for seed in range(7):
        assert torch.equal(drawn(seed)[0], together[seed])
    assert not torch.equal(
        together,
        Engine(base, LEGAL, dtype=dtype).generate([Prompt.of(TEMPLATE, [3, 1, 2], range(7))], config),
    )
