"""How fast ruDALL-E's transformer draws: the engine beside the scheme of ruDALL-E's own code, written plainly.

    python bench/rudalle.py [--layers 7] [--batches 1 4] [--lengths 0 256 512 768 1023]

Random weights at Malevich's layer shape (width 2,048, 16 heads of 128 channels, 128 tokens of text, 32 x 32 codes),
float32 both, in turns. The scheme: keys, values and each layer's outputs are kept and joined anew in each step, masks
multiply whole rows of scores, norms run over the whole sequence, and so does the map to logits. Its steps are timed at
some lengths and integrated, since a whole picture takes an hour. The engine draws whole pictures, without guesses,
and one pass is timed with each mask and with none.
"""

import itertools
import math
import statistics
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
import tyro
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.proposer import Proposer
from cogview.files import atomic_write_json
from cogview.generation.text_to_image import picture_request
from cogview.interop.rudalle_layout import Layout
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import GridMask, TransformerConfig
from cogview.transformer.grid_attention import layer_grids
from cogview.transformer.model import Transformer
from cogview.uninitialised import uninitialised
from environment import RESULTS, describe, seconds_of

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Args:
        layers: of the transformer; 7 take 2 GB.
        batches: pictures at a time.
        lengths: codes before the timed steps of the scheme; the last is the longest.
        repeats: of everything.
        quick: a tiny shape that writes nothing.
    """

    layers: int = 7
    batches: tuple[int, ...] = (1, 4)
    lengths: tuple[int, ...] = (0, 256, 512, 768, 1023)
    repeats: int = 3
    quick: bool = False


def layout_of(options: Options) -> Layout:
    """Return Malevich's layout with fewer layers, or a tiny one."""
    tiny = options.quick
    return Layout(
        num_layers=options.layers,
        width=64 if tiny else 2048,
        num_heads=2 if tiny else 16,
        mlp_factor=4,
        num_texts=200 if tiny else 16_512,
        num_codes=100 if tiny else 8_192,
        num_drawn_codes=100 if tiny else 8_192,
        num_pieces=72 if tiny else 16_384,
        num_left=128,
        num_right=None,
        side=32,
        sequence="v3",
        kernels=(None, 11),
    )


def random_transformer(config: TransformerConfig) -> Transformer:
    """Return a transformer with random weights."""
    with uninitialised("cpu"):
        transformer = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.normal_(std=0.02, generator=generator)
    return transformer.eval()


@dataclass
class Cache:
    """What the scheme keeps of a layer: keys and values [b h t e], outputs of attention and of the MLP [b t d]."""

    keys: Tensor
    values: Tensor
    attended: Tensor
    of_mlp: Tensor


@dataclass
class Scheme:
    """The peer's way to draw.

    Args:
        transformer: whose weights to use.
    """

    transformer: Transformer
    caches: list[Cache] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.transformer.config
        num = config.grid.stop_place
        self.masks = [grid.mask(num).float() for grid in layer_grids(config.grid)]
        self.causal = torch.ones(num, num).tril()

    def start(self, batch: int, length: int) -> None:
        """Make up what is kept of so many tokens."""
        config = self.transformer.config
        heads = (batch, config.num_heads, length, config.head_size)
        flat = (batch, length, config.hidden_size)
        self.caches = [
            Cache(torch.randn(heads), torch.randn(heads), torch.randn(flat), torch.randn(flat))
            for _ in range(config.num_layers)
        ]

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the logits after the last token, and keep what its place adds.

        Args:
            tokens: all so far, [b t].
            positions: of the tokens.
        """
        x = self.transformer.embedding(tokens, positions)
        for layer, block in enumerate(self.transformer.blocks):
            assert isinstance(block, SandwichBlock)
            x = self._block(block, layer, x)
        x = self.transformer.head_norm(self.transformer.final_norm(x))
        return self.transformer.logits(x)[:, -1]

    def _block(self, block: SandwichBlock, layer: int, x: Tensor) -> Tensor:
        cache, config = self.caches[layer], self.transformer.config
        num_past, num = cache.keys.shape[2], x.shape[1]
        normed = block.attention_input_norm(x)
        heads = block.attention.query_key_value(normed[:, num_past:]).chunk(3, dim=-1)
        query, key, value = (
            each.unflatten(-1, (config.num_heads, config.head_size)).transpose(1, 2) for each in heads
        )
        cache.keys, cache.values = torch.cat([cache.keys, key], 2), torch.cat([cache.values, value], 2)
        mask = (self.causal[:num, :num] * self.masks[layer][:num, :num])[num_past:]
        scores = query / math.sqrt(config.head_size) @ cache.keys.transpose(-1, -2)
        scores = scores * mask - 10_000.0 * (1.0 - mask)
        scaled = scores / 32
        scores = (scaled - scaled.flatten(2).amax(-1)[..., None, None]) * 32
        attended = (scores.softmax(-1) @ cache.values).transpose(1, 2).flatten(2)
        cache.attended = torch.cat([cache.attended, block.attention.output(attended)], 1)
        x = x + block.attention_output_norm(cache.attended)
        normed = block.mlp_input_norm(x)
        new = block.mlp(normed[:, num_past:])
        is_last = layer == config.num_layers - 1
        cache.of_mlp = torch.cat([cache.of_mlp if is_last else normed[:, :num_past], new], 1)
        return x + block.mlp_output_norm(cache.of_mlp)


@torch.inference_mode()
def scheme_seconds(scheme: Scheme, layout: Layout, batch: int, num_codes: int) -> float:
    """Return the seconds of the scheme's step after some codes."""
    template = layout.template
    length = template.num_text_tokens + num_codes
    sequence = template.build([5], np.zeros(template.num_codes_per_image, dtype=np.int64))
    tokens, positions = (
        torch.from_numpy(each[:length]).expand(batch, -1) for each in (sequence.tokens, sequence.positions)
    )
    scheme.start(batch, length - 1)
    return seconds_of(partial(scheme.step, tokens, positions), CPU)


def engine_seconds(runner: Runner, layout: Layout, batch: int, seed: int) -> float:
    """Return the seconds of a batch of pictures."""
    requests = [
        picture_request(
            runner, layout.template, [5], seed + number, SamplingConfig(top_k=min(2048, layout.num_codes))
        )
        for number in range(batch)
    ]
    return seconds_of(partial(runner.engine.run, requests), CPU)


def mask_seconds(layout: Layout, repeats: int) -> dict[str, float]:
    """Return the seconds of drawing a few pictures' codes with one mask in all layers, and with none."""
    from cogview.decoding.attention_layout import plan_layout
    from cogview.decoding.attention_tables import attend_to_tables
    from cogview.decoding.pool import PagePool, Row

    config, batch = layout.config, 4
    kinds: tuple[tuple[GridMask, int], ...] = (("row", 0), ("column", 0), ("convolution", 11))
    configs = {
        kind: replace(
            config,
            grid=replace(
                config.grid, masks=(kind,) * config.num_layers, kernel_sizes=(size,) * config.num_layers
            ),
        )
        for kind, size in kinds
    }
    configs = {"none": replace(config, attention_pattern="dense"), **configs}
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    passes = {}
    for name, each in configs.items():
        pool = PagePool(each, 9 * batch)
        pool.keys.uniform_()
        pool.values.uniform_()
        rows = [Row(pool, each.grid.stop_place) for _ in range(batch)]
        for row in rows:
            row.reserve()
            row.length = each.grid.first_place + each.grid.num_cells * 3 // 4
        passes[name] = pool, rows
    new = torch.randn(batch, 3 * config.hidden_size)
    for _, (name, (pool, rows)) in itertools.product(range(10 * repeats), passes.items()):

        def attend(pool: PagePool = pool, rows: list[Row] = rows) -> None:
            layout = plan_layout(pool.config, rows, [1] * batch, CPU, reads_units=True)
            attention = attend_to_tables(pool, layout)
            for layer in range(pool.config.num_layers):
                attention(layer, new)

        seconds[name].append(seconds_of(attend, CPU))
    return {name: statistics.median(each) for name, each in seconds.items()}


def main(options: Options) -> None:
    """Measure, print and write."""
    layout = layout_of(options)
    transformer = random_transformer(layout.config)
    scheme, runner = Scheme(transformer), Runner.of(transformer, proposer=Proposer(1))
    template = layout.template
    num = template.num_codes_per_image
    result: dict[str, object] = {
        **describe(CPU),
        "layers": options.layers,
        "parameters": layout.config.num_parameters,
    }
    check(scheme, runner, layout)
    for batch in options.batches:
        engine_seconds(runner, layout, batch, 0)  # compiles kernels
        steps: dict[int, list[float]] = {length: [] for length in options.lengths}
        drawn = []
        for repeat in range(options.repeats):
            for length in options.lengths:
                steps[length].append(scheme_seconds(scheme, layout, batch, min(length, num - 1)))
            drawn.append(engine_seconds(runner, layout, batch, repeat + 1))
        medians = {length: statistics.median(each) for length, each in steps.items()}
        theirs = float(np.trapezoid(list(medians.values()), list(medians))) * num / options.lengths[-1]
        ours = statistics.median(drawn)
        result[f"batch_{batch}"] = {
            "theirs_s": theirs,
            "ours_s": ours,
            "ratio": theirs / ours,
            "their_steps_s": medians,
        }
        print(
            f"batch {batch}: {num} codes in {ours:.1f} s, by the scheme {theirs:.1f} s, {theirs / ours:.1f} x"
        )
    masks = mask_seconds(layout, options.repeats)
    result["attention_of_a_pass_s"] = masks
    for name, seconds in masks.items():
        print(
            f"attention of a pass of 4, mask {name}: {1000 * seconds:.2f} ms, {seconds / masks['none']:.2f} of none"
        )
    if not options.quick:
        atomic_write_json(RESULTS / "rudalle.json", result)


@torch.inference_mode()
def check(scheme: Scheme, runner: Runner, layout: Layout) -> None:
    """Raise if scheme and engine do not draw alike."""
    template = layout.template
    config = SamplingConfig(temperature=0.0)
    sequence = template.prefix([5])
    tokens, positions = torch.from_numpy(sequence.tokens)[None], torch.from_numpy(sequence.positions)[None]
    scheme.start(1, 0)
    codes = []
    for place in range(6):
        code = int(scheme.step(tokens, positions)[0, : layout.num_drawn_codes].argmax())
        codes.append(code)
        tokens = torch.cat([tokens, torch.tensor([[code]])], 1)
        positions = torch.cat([positions, torch.tensor([[template.first_code_position + place]])], 1)
    given = np.full(template.num_codes_per_image, 0)
    given[:6] = -1
    request = picture_request(runner, template, [5], 0, config, given=given)
    (result,) = runner.engine.run([request])
    assert not isinstance(result, list)
    assert result.tokens[:6].tolist() == codes, (result.tokens[:6], codes)


if __name__ == "__main__":
    main(tyro.cli(Options))
