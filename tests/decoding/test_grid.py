"""Decoding with masks of the picture's grid reads what they show, and gives what the transformer gives."""

import dataclasses

import numpy as np
import pytest
import torch

from cogview.decoding.attention_fused import attend_by_fused_kernel
from cogview.decoding.attention_layout import UNIT, plan_layout
from cogview.decoding.attention_tables import attend_to_tables
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.pool import PagePool, Row
from cogview.decoding.request import Request, SequenceResult
from cogview.generation.text_to_image import picture_request
from grid_models import grid_template, grid_transformer

CASES = [(6, 4, False, 0), (7, 4, True, 1), (40, 12, False, 0)]


def results(runner: Runner, requests: list[Request]) -> list[SequenceResult]:
    return [each for each in runner.engine.run(requests) if isinstance(each, SequenceResult)]


@pytest.mark.parametrize(("num_text", "side", "wraps", "shift"), CASES)
@torch.no_grad()
def test_scores_are_those_of_the_transformer(num_text: int, side: int, wraps: bool, shift: int) -> None:
    template = grid_template(num_text, side)
    transformer = grid_transformer(template, wraps=wraps, shift=shift)
    codes = np.random.default_rng(0).integers(0, 16, template.num_codes_per_image)
    runner = Runner.of(transformer)
    request = picture_request(runner, template, [5, 6], 0, SamplingConfig(), given=codes)
    (scored,) = results(runner, [dataclasses.replace(request, is_scored=True)])
    sequence = template.build([5, 6], codes)
    tokens, positions = (torch.from_numpy(each)[None, :-1] for each in (sequence.tokens, sequence.positions))
    logits = transformer(tokens, positions)[0, num_text - 1 :, :16]
    wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(codes), reduction="none")
    assert scored.nats is not None
    np.testing.assert_allclose(scored.nats, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(("num_text", "side", "wraps", "shift"), CASES)
def test_a_picture_is_the_same_alone_and_in_company(
    num_text: int, side: int, wraps: bool, shift: int
) -> None:
    template = grid_template(num_text, side)
    runner = Runner.of(grid_transformer(template, wraps=wraps, shift=shift))
    config = SamplingConfig(guidance=1.5, top_p=0.9)
    requests = [picture_request(runner, template, [5, seed], seed, config) for seed in range(4)]
    together = results(runner, requests)
    for request, drawn in zip(requests, together, strict=True):
        (alone,) = results(runner, [request])
        assert alone.tokens.tolist() == drawn.tokens.tolist()


@pytest.mark.parametrize(("num_text", "side", "wraps", "shift"), CASES)
@torch.no_grad()
def test_tables_and_the_fused_kernel_agree(num_text: int, side: int, wraps: bool, shift: int) -> None:
    """The kernel for GPUs reads all entries and masks them, the one for CPUs only the units that are seen."""
    template = grid_template(num_text, side)
    config = grid_transformer(template, wraps=wraps, shift=shift).config
    generator = torch.Generator().manual_seed(0)
    pools = [PagePool(config, 4) for _ in range(2)]
    rows = [Row(pool, template.max_tokens) for pool in pools]
    for row in rows:
        row.reserve()
    for num_new in (num_text, side, 1, 2 * side):
        new = torch.randn(num_new, 3 * config.hidden_size, generator=generator)
        by_units, by_biases = (
            plan_layout(config, [row], [num_new], torch.device("cpu"), reads_units=reads)
            for row, reads in zip(rows, (True, False), strict=True)
        )
        assert by_units.biases is None
        assert not by_biases.seen_units
        by_table = attend_to_tables(pools[0], by_units)
        by_kernel = attend_by_fused_kernel(pools[1], by_biases)
        for layer in range(config.num_layers):
            torch.testing.assert_close(by_table(layer, new), by_kernel(layer, new), atol=1e-5, rtol=0)
        for row in rows:
            row.length += num_new


def test_a_mask_reads_less_than_all() -> None:
    """At ruDALL-E's size: 128 tokens of text, and at most three units beside them."""
    template = grid_template(128, 32)
    config = grid_transformer(template).config
    row = Row(PagePool(config, 9), template.max_tokens)
    row.reserve()
    row.length = 1100
    layout = plan_layout(config, [row], [1], torch.device("cpu"), reads_units=True)
    read = [int(units.num_units[0]) * UNIT for units in layout.seen_units]
    assert read[0] <= 128 + 3 * UNIT
    assert read[1] == 128 + UNIT
    assert max(read) < 1100 / 2
