"""Native kernels compute what the plain ones do, and a row has the same bits in any company."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cogview.decoding.attention_layout import plan_layout
from cogview.decoding.attention_tables import attend_to_tables
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.pool import PagePool, Row
from cogview.errors import CogViewError, UsageError
from cogview.generation.text_to_image import draw, picture_request
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.normalization import RelaxedLayerNorm, rowwise_norm
from cogview.transformer.quantized import QuantizedRows
from grid_models import grid_template, grid_transformer

native = pytest.importorskip("cogview.decoding.native")  # in one file, so that kernels are compiled once

VOCABULARY = Vocabulary(num_image_codes=48, num_text_pieces=40)
TEMPLATE = TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=4, grid_columns=4, max_text_pieces=6)
SAMPLING = SamplingConfig(top_p=0.95, guidance=1.5)
CONFIG = TransformerConfig(
    num_layers=2,
    hidden_size=64,
    num_heads=2,
    vocabulary_size=VOCABULARY.size,
    num_positions=TEMPLATE.num_positions,
)


@torch.no_grad()
def transformer_of(**changes: object) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(dataclasses.replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]
    for parameter in transformer.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return transformer


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(96, 288), (33, 17), (7, 64), (300, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8], ids=str)
def test_a_linear_map_is_the_exact_product(
    dtype: torch.dtype, num_inputs: int, num_outputs: int, gelu: bool
) -> None:
    generator = torch.Generator().manual_seed(num_inputs)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) * num_inputs**-0.5
    bias = torch.randn(num_outputs, generator=generator)
    rows = QuantizedRows.of(weight)
    is_int8 = dtype == torch.int8
    linear = native.native_linear(rows if is_int8 else weight, bias, dtype=None if is_int8 else dtype)
    stored = rows.floats() if is_int8 else weight.to(dtype)
    x = torch.randn(20, num_inputs, generator=generator)
    exact = F.linear(x.double(), stored.double(), bias.double())
    exact = F.gelu(exact, approximate="tanh") if gelu else exact
    together = linear(x, gelu)
    assert together.dtype == torch.float32
    assert (together - exact).abs().max() < 1e-5
    for num in (0, 1, 2, 3, 4, 5, 6, 7, 11, 13):
        assert torch.equal(linear(x[:num], gelu), together[:num])
        assert torch.equal(linear(x[20 - num :], gelu), together[20 - num :])


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("scope", ["token", "tensor", "none"])
def test_a_norm_is_pytorch_s(scope: str) -> None:
    torch.manual_seed(0)
    module = RelaxedLayerNorm(96, scope, 1e-5)
    with torch.no_grad():
        module.weight.normal_()
        module.bias.normal_()
    x = (torch.randn(9, 96) + 1) * torch.tensor([1e-3, 1, 1, 1e4, 1, 1, 1, 1, 0])[:, None]
    found = native.native_norm(module)(x)
    assert torch.allclose(found, rowwise_norm(module)(x), atol=2e-5)
    assert torch.equal(torch.cat([native.native_norm(module)(row[None]) for row in x]), found)
    assert torch.equal(native.native_norm(torch.nn.Identity())(x), x)


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("num_tokens", [0, 1, 126, 129, 255])
@torch.inference_mode()
def test_attention_is_that_of_tables(num_tokens: int, dtype: torch.dtype) -> None:
    """Numbers are float16's, so that both pools can hold them."""
    config = dataclasses.replace(CONFIG, num_positions=400)
    lengths, nums = [num_tokens, 7, num_tokens // 2], [3, 1, 9]
    generator = torch.Generator().manual_seed(num_tokens)
    pools = [PagePool(config, 9, each) for each in (dtype, torch.float32)]
    keys, values = (
        torch.randn(each.shape, generator=generator).half() for each in (pools[0].keys, pools[0].values)
    )
    heads = torch.randn(sum(nums), 3 * config.hidden_size, generator=generator).half().float()
    every = []
    for pool in pools:
        rows = [Row(pool, 300) for _ in lengths]
        for row, length in zip(rows, lengths, strict=True):
            row.reserve()
            row.length = length
        pool.keys.copy_(keys)
        pool.values.copy_(values)
        every.append(rows)
    layouts = [plan_layout(config, rows, nums, torch.device("cpu")) for rows in every]
    found, wanted = native.NativeAttention(pools[0], layouts[0]), attend_to_tables(pools[1], layouts[1])
    for layer in range(config.num_layers):
        attended = found(layer, heads)
        assert (attended - wanted(layer, heads)).abs().max() < 2e-5
        alone = native.NativeAttention(
            pools[0], plan_layout(config, every[0][2:], nums[2:], torch.device("cpu"))
        )
        assert torch.equal(alone(layer, heads[4:]), attended[4:])
    assert torch.equal(pools[0].keys.float(), pools[1].keys)
    assert torch.equal(pools[0].values.float(), pools[1].values)


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize(
    "changes",
    [{}, {"layer_norm": "pre"}, {"layer_norm": "post"}, {"norm_scope": "tensor"}, {"qk_norm": True}],
    ids=str,
)
def test_most_probable_codes_are_the_transformer_s(changes: dict[str, object]) -> None:
    transformer = transformer_of(**changes)
    runner = Runner.of(transformer, backend="native")
    request = picture_request(runner, TEMPLATE, [5, 6, 7], 0, SamplingConfig(temperature=0.0))
    codes = draw(runner, [request])[0]
    sequence = TEMPLATE.build([5, 6, 7], codes.numpy())
    tokens, positions = (torch.from_numpy(each)[None] for each in (sequence.tokens, sequence.positions))
    with torch.no_grad():
        logits = transformer(tokens, positions)[0, :, : VOCABULARY.num_image_codes]
    start = len(TEMPLATE.prefix([5, 6, 7]).tokens)
    assert torch.equal(logits[start - 1 : start + 15].argmax(-1), codes)
    assert changes == {"layer_norm": "post"} or len(set(codes.tolist())) > 1


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8], ids=str)
@pytest.mark.slow
def test_a_seed_draws_the_same_codes_in_any_company(dtype: torch.dtype) -> None:
    """Also beside an adapter, where maps and norms are called one by one."""
    base = transformer_of()
    adapted = AdaptedTransformer(base, AdapterConfig(rank=5, trains_norms=True, token_rows=(7,)))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    runner = Runner.of(base, dtype=dtype, backend="native")
    beside = runner.adapted(adapted)

    def drawn(runner: Runner, *seeds: int) -> torch.Tensor:
        return draw(runner, [picture_request(runner, TEMPLATE, [3, 1], seed, SAMPLING) for seed in seeds])

    of_base, of_adapter = (drawn(each, *range(7)) for each in (runner, beside))
    assert not torch.equal(of_base, of_adapter)
    for seed in range(7):
        assert torch.equal(drawn(runner, seed)[0], of_base[seed])
        assert torch.equal(drawn(beside, seed)[0], of_adapter[seed])
    assert torch.equal(drawn(runner, 2, 3, 5), of_base[[2, 3, 5]])
    both = [
        picture_request(each, TEMPLATE, [3, 1], seed, SAMPLING)
        for seed in range(7)
        for each in (runner, beside)
    ]
    mixed = draw(runner, both)
    assert torch.equal(mixed[::2], of_base)
    assert torch.equal(mixed[1::2], of_adapter)


@pytest.mark.usefixtures("num_threads")
@torch.no_grad()
def test_three_regions_draw_what_they_draw_by_tables() -> None:
    regions = ThreeRegionConfig(
        block_tokens=2,
        key_window_blocks=2,
        num_text_and_pivot_tokens=12,
        image_start_token=VOCABULARY.separator("BOI1"),
        num_image_tokens=TEMPLATE.num_codes_per_image,
    )
    transformer = transformer_of(attention_pattern="three_region", three_region=regions)
    by_tables, natively = (Runner.of(transformer, backend=backend) for backend in ("plain", "native"))
    texts = [[3, 1, 4, 1], [1, 3], []]

    def drawn(runner: Runner, *texts: list[int]) -> torch.Tensor:
        return draw(runner, [picture_request(runner, TEMPLATE, text, 0, SAMPLING) for text in texts])

    together = drawn(natively, *texts)
    assert torch.equal(together, drawn(by_tables, *texts))
    assert torch.equal(drawn(natively, texts[1])[0], together[1])


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize(("num_text", "side", "wraps", "shift"), [(7, 4, True, 1), (40, 12, False, 0)])
@torch.no_grad()
def test_grids_draw_what_they_draw_by_tables(num_text: int, side: int, wraps: bool, shift: int) -> None:
    template = grid_template(num_text, side)
    small = grid_transformer(template, wraps=wraps, shift=shift)
    torch.manual_seed(0)
    transformer = Transformer(dataclasses.replace(small.config, hidden_size=64)).eval()
    for parameter in transformer.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    by_tables, natively = (Runner.of(transformer, backend=backend) for backend in ("plain", "native"))

    def drawn(runner: Runner, *seeds: int) -> torch.Tensor:
        return draw(runner, [picture_request(runner, template, [5, seed], seed, SAMPLING) for seed in seeds])

    together = drawn(natively, 0, 1, 2)
    assert torch.equal(together, drawn(by_tables, 0, 1, 2))
    assert torch.equal(drawn(natively, 1)[0], together[1])


def test_weights_that_are_not_finite_are_said() -> None:
    for name in ("attention.output", "mlp.inner", "attention.query_key_value"):
        transformer = transformer_of()
        with torch.no_grad():
            transformer.get_parameter(f"blocks.0.{name}.bias")[0] = torch.nan
        runner = Runner.of(transformer, backend="native")
        with pytest.raises(CogViewError, match="NaN"):
            draw(runner, [picture_request(runner, TEMPLATE, [3], 0, SAMPLING)])


def test_what_native_kernels_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"16 channels.* 8"):
        Runner.of(transformer_of(num_heads=8), backend="native")
    with pytest.raises(UsageError, match="CPU"):
        Runner.of(transformer_of().to("meta"), backend="native")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"cogview\[native\]"):
        Runner.of(transformer_of(), backend="native")


def test_groups_are_adjacent_tokens_of_a_row() -> None:
    groups = native._groups(np.array([0, 1, 1, 1, 1, 1, 1, 1, 2, 2]), 6)
    assert groups.tolist() == [[0, 1], [1, 6], [7, 1], [8, 2]]
