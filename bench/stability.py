"""Figure 4(b) of the paper: what keeps a deep transformer from overflowing in fp16 at a learning rate far too high.

    python bench/stability.py --tokens TOKENS                       # emulated fp16, about half an hour on 2 cores
    python bench/stability.py --tokens TOKENS --device cuda --hidden-size 1024 --num-heads 16 --out stability-cuda
    python bench/stability.py --quick                               # a self-test at a tiny shape

64 layers, batches of 4, learning rates of 0.1 and 0.01 without a warm-up; Pre-LN, Post-LN and Sandwich-LN, each with
and without PB-Relax (its LayerNorm and its attention; without it the plain LayerNorm and the usual order of
operations), and, beyond the paper, with normalised queries and keys (QK-norm). Three seeds each. Everything is computed
in fp16, on a CPU emulated (`emulated_half.py`), over fp32 master weights with a dynamic loss scale.
TOKENS is what `cogview tokenize` makes of the default data.

A run has overflowed at the first step whose forward pass gives a loss that isn't finite. It may come back, when
another batch fits; it is given up after some such steps in a row. Skipped steps are those whose gradient overflowed.
"""

import io
import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Int64
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from cogview.data.loader import TokenBatches
from cogview.data.shards import TokenShards
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.config import LossScaleConfig
from cogview.training.loss_scale import LossScale
from cogview.transformer.config import LayerNormPlacement, TransformerConfig
from cogview.transformer.model import Transformer
from emulated_half import EmulatedHalf, round_to_half
from environment import RESULTS, describe

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "stability.png"
LARGEST_HALF = 65_504
MAX_FAILURES_IN_A_ROW = 10
MAX_TEXT_PIECES = 40


@dataclass(frozen=True, kw_only=True)
class System:
    """What a transformer is stabilised by.

    Args:
        layer_norm: where its branches are normalised.
        relax: whether PB-Relax is on.
        qk_norm: whether queries and keys are normalised.
    """

    layer_norm: LayerNormPlacement
    relax: bool
    qk_norm: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        more = [name for name, used in (("PB-Relax", self.relax), ("QK-norm", self.qk_norm)) if used]
        return " + ".join([f"{self.layer_norm.capitalize()}-LN", *more])


PLACEMENTS: tuple[LayerNormPlacement, ...] = ("pre", "post", "sandwich")
SYSTEMS = [System(layer_norm=place, relax=relax) for place in PLACEMENTS for relax in (False, True)]
SYSTEMS += [System(layer_norm=place, relax=False, qk_norm=True) for place in PLACEMENTS]


class Watch:
    """Sees the main branch and the attention scores of each layer as a forward pass goes by."""

    def __init__(self, model: Transformer) -> None:
        self.num_heads = model.config.num_heads
        self.main_branch: list[float] = []
        self.scores: list[float] = []
        self.first_overflow: str | None = None
        for index, block in enumerate(model.blocks):
            block.register_forward_hook(self._main_branch_of(index))
            block.attention.register_forward_hook(self._attended_of(index))
            block.attention.query_key_value.register_forward_hook(self._scores_of(model, index))

    def clear(self) -> None:
        """Forget what was seen."""
        self.main_branch, self.scores, self.first_overflow = [], [], None

    def _overflow(self, where: str, values: Tensor) -> None:
        if self.first_overflow is None and not values.isfinite().all():
            self.first_overflow = where

    def _main_branch_of(self, index: int) -> Any:
        def see(module: Any, inputs: Any, output: Tensor) -> None:
            self._overflow(f"main branch, layer {index}", output)
            self.main_branch.append(float(output.detach().abs().max()))

        return see

    def _attended_of(self, index: int) -> Any:
        def see(module: Any, inputs: Any, output: Tensor) -> None:
            self._overflow(f"attention, layer {index}", output)

        return see

    def _scores_of(self, model: Transformer, index: int) -> Any:
        def see(module: Any, inputs: Any, output: Tensor) -> None:
            self._overflow(f"queries, keys or values, layer {index}", output)
            b, t, _ = output.shape
            attention = model.blocks[index].attention
            heads = output.detach().view(b, t, 3, self.num_heads, -1)
            query, key, _ = heads.permute(2, 0, 3, 1, 4)
            if model.config.qk_norm:
                query, key = attention.query_norm(query), attention.key_norm(key)
            # Outside of fp16, so that what it cannot hold is seen all the same.
            with torch.utils._python_dispatch._disable_current_modes():
                scores = query.float() @ key.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
                self.scores.append(float(scores.detach().tril().abs().max()))

        return see


def batches(tokens: Path | None, seed: int, batch_size: int, num_tokens: int) -> Iterator[dict[str, Tensor]]:
    """Yield the beginnings of sequences with their positions and targets, for ever; without tokens, arbitrary ones."""
    if tokens is None:
        random = np.random.default_rng(seed)
        while True:
            ids = torch.from_numpy(random.integers(0, 64, (batch_size, num_tokens + 1)))
            yield {"tokens": ids[:, :-1], "targets": ids[:, 1:], "positions": torch.arange(num_tokens)[None]}
    source = TokenBatches(*read(tokens), seed=seed, batch_size=batch_size)
    step = 0
    while True:
        batch, step = source.batch(step), step + 1
        found: dict[str, Int64[np.ndarray, "b t"]] = {
            "tokens": batch.tokens,
            "targets": batch.targets,
            "positions": batch.positions,
        }
        yield {name: torch.from_numpy(each[:, :num_tokens].copy()) for name, each in found.items()}


def read(tokens: Path) -> tuple[TokenShards, TextToImageTemplate]:
    """Return the token shards and what puts them in sequence."""
    shards = TokenShards(tokens)
    rows, columns = shards.grid
    return shards, TextToImageTemplate(
        vocabulary=Vocabulary(num_image_codes=shards.num_codes, num_text_pieces=shards.num_pieces),
        grid_rows=rows,
        grid_columns=columns,
        max_text_pieces=MAX_TEXT_PIECES,
    )


def run(
    config: TransformerConfig,
    source: Iterator[dict[str, Tensor]],
    *,
    learning_rate: float,
    num_steps: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Train one model as long as it lasts and return what was seen."""
    torch.manual_seed(seed)
    with device:  # where large weights are drawn faster
        model = Transformer(config)
    masters = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.Adam(masters, lr=learning_rate, betas=(0.9, 0.95))
    is_emulated = device.type == "cpu"
    half: AbstractContextManager[object] = EmulatedHalf() if is_emulated else nullcontext()
    if not is_emulated:
        model.half()
    watch, scale = Watch(model), LossScale(LossScaleConfig())
    seen: dict[str, list[float]] = {"loss": [], "main_branch": [], "scores": []}
    by_layer: dict[str, list[float]] = {}
    overflow: dict[str, Any] | None = None
    num_skipped = failures = 0
    for step in range(num_steps):
        batch = {name: tensor.to(device) for name, tensor in next(source).items()}
        with torch.no_grad():
            for parameter, master in zip(model.parameters(), masters, strict=True):
                parameter.copy_(round_to_half(master) if is_emulated else master)
                parameter.grad = None
        watch.clear()
        with half:
            logits = model(batch["tokens"], batch["positions"].expand_as(batch["tokens"]))
        # The loss is computed in fp32, as everywhere in the field.
        leaf = logits.detach().float().requires_grad_()
        loss = F.cross_entropy(leaf.flatten(0, 1), batch["targets"].flatten())
        if not loss.isfinite():
            where = watch.first_overflow or "head"
            overflow = overflow or {"step": step + 1, "where": where}
            failures += 1
            if failures == MAX_FAILURES_IN_A_ROW:
                break
            continue
        failures = 0
        for name, value in (
            ("loss", float(loss.detach())),
            ("main_branch", max(watch.main_branch)),
            ("scores", max(watch.scores)),
        ):
            seen[name].append(value)
        by_layer = {"main_branch": watch.main_branch, "scores": watch.scores}
        (loss * scale.value).backward()
        assert leaf.grad is not None
        gradient = round_to_half(leaf.grad) if is_emulated else leaf.grad.half()
        with half:
            logits.backward(gradient)
        gradients = [parameter.grad.float() for parameter in model.parameters()]
        is_finite = bool(torch.stack([each.abs().max() for each in gradients]).isfinite().all())
        if is_finite:
            for master, each in zip(masters, gradients, strict=True):
                master.grad = each / scale.value
            optimizer.step()
        num_skipped += not is_finite
        scale.update(not is_finite)
    return {
        "first_overflow": overflow,
        "given_up": failures == MAX_FAILURES_IN_A_ROW,
        "skipped_steps": num_skipped,
        "final_loss_scale": scale.value,
        "final_loss": seen["loss"][-1] if seen["loss"] else None,
        **seen,
        "by_layer_at_the_end": by_layer,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Return the results as a table, the seeds of a system in one row."""
    lines = [
        "| system | rate | first overflow, by seed | where | given up | skipped steps | largest main branch "
        "| largest score | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rate in sorted({each["learning_rate"] for each in runs}):
        for name in dict.fromkeys(each["system"] for each in runs):
            found = [each for each in runs if (each["system"], each["learning_rate"]) == (name, rate)]
            overflows = [each["first_overflow"] for each in found]
            steps = ", ".join(str(each["step"]) if each else "none" for each in overflows)
            places = ", ".join(dict.fromkeys(each["where"] for each in overflows if each)) or "-"
            largest = [
                max(each[kind], default=math.nan) for kind in ("main_branch", "scores") for each in found
            ]
            losses = [each["final_loss"] for each in found if each["final_loss"] is not None]
            middle = f"{statistics.median(losses):.2f}" if losses else "-"
            lines.append(
                f"| {name} | {rate:g} | {steps} | {places} | {sum(each['given_up'] for each in found)} of {len(found)} "
                f"| {', '.join(str(each['skipped_steps']) for each in found)} "
                f"| {max(largest[: len(found)]):.3g} | {max(largest[len(found) :]):.3g} | {middle} |"
            )
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw scales and losses by step, and scales by layer at the end, of the first seed; a row for each rate."""
    rates = sorted({each["learning_rate"] for each in runs})
    figure = Figure(figsize=(20, 4.2 * len(rates)), layout="constrained")
    panels = figure.subplots(len(rates), 5, squeeze=False)
    colours = {name: f"C{index}" for index, name in enumerate(dict.fromkeys(each["system"] for each in runs))}
    for row, rate in zip(panels, rates, strict=True):
        for each in runs:
            if each["learning_rate"] != rate or each["seed"] != runs[0]["seed"]:
                continue
            style = {"color": colours[each["system"]], "label": each["system"], "linewidth": 1.2}
            for axes, kind in zip(row, ("main_branch", "scores", "loss"), strict=False):
                axes.plot(range(1, len(each[kind]) + 1), each[kind], **style)
            for axes, kind in zip(row[3:], ("main_branch", "scores"), strict=True):
                axes.plot(each["by_layer_at_the_end"].get(kind, []), **style)
        titles = ("main branch, max |x|", "attention scores, max", "loss, nats")
        titles += ("main branch by layer, last step", "scores by layer, last step")
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(f"{title} (rate {rate:g})", fontsize=10)
            axes.set_xlabel("layer" if "by layer" in title else "step")
            axes.grid(alpha=0.3)
            if "loss" not in title:
                axes.set_yscale("log")
                axes.axhline(LARGEST_HALF, color="black", linestyle=":", linewidth=1)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(colours))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=80, format="png")
    atomic_write_bytes(path, picture.getvalue())


def main(
    *,
    tokens: Path | None = None,
    quick: bool = False,
    num_layers: int = 64,
    hidden_size: int = 64,
    num_heads: int = 4,
    batch_size: int = 4,
    num_tokens: int = 96,
    num_steps: int = 50,
    learning_rates: tuple[float, ...] = (0.1, 0.01),
    num_seeds: int = 3,
    device: Literal["cpu", "cuda"] = "cpu",
    out: str = "stability",
    picture: Path = PICTURE,
) -> None:
    """Train all systems, print the table, draw the curves and write all as JSON.

    Args:
        tokens: a folder of tokens; arbitrary numbers if not given.
        quick: a tiny shape and few steps, only to see that everything runs; nothing is written.
        num_layers: of each transformer.
        hidden_size: width of each transformer; the paper's is 1,024.
        num_heads: of each transformer.
        batch_size: sequences of a step.
        num_tokens: of each sequence, which is cut there.
        num_steps: of each run.
        learning_rates: of Adam, constant.
        num_seeds: runs of each system at each rate.
        device: where; on cuda in true fp16.
        out: name of the result.
        picture: the PNG to draw.
    """
    if quick:
        num_layers, hidden_size, num_heads, num_steps, num_seeds, num_tokens = 4, 16, 2, 4, 1, 16
        learning_rates = (0.1,)
    place = torch.device(device)
    environment = describe(place)
    shape = {"num_layers": num_layers, "hidden_size": hidden_size, "num_heads": num_heads}
    ids = {"vocabulary_size": 64, "num_positions": num_tokens}
    if tokens is not None:
        template = read(tokens)[1]
        ids = {"vocabulary_size": template.vocabulary.num_tokens, "num_positions": template.num_positions}
    start = time.perf_counter()
    runs: list[dict[str, Any]] = []
    for rate in learning_rates:
        for system in SYSTEMS:
            config = TransformerConfig(
                **shape,
                **ids,
                layer_norm=system.layer_norm,
                norm_scope="token" if system.relax else "none",
                attention="relaxed" if system.relax else "plain",
                qk_norm=system.qk_norm,
            )
            for seed in range(num_seeds):
                found = run(
                    config,
                    batches(tokens, seed, batch_size, num_tokens),
                    learning_rate=rate,
                    num_steps=num_steps,
                    seed=seed,
                    device=place,
                )
                told = {"system": system.name, "learning_rate": rate, "seed": seed}
                runs.append(told | asdict(system) | found)
                print(f"{told} {found['first_overflow']}, loss {found['final_loss']}", file=sys.stderr)
    print(table(runs))
    if not quick:
        draw(runs, picture)
        path = RESULTS / f"{out}.json"
        numbers = {"batch_size": batch_size, "num_tokens": num_tokens, "num_steps": num_steps}
        seconds = time.perf_counter() - start
        arithmetic = "fp16" if device == "cuda" else "fp32, each result rounded to fp16"
        result = {"benchmark": "stability", "environment": environment, "arithmetic": arithmetic}
        atomic_write_json(path, result | shape | numbers | {"seconds": seconds, "runs": runs})
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
