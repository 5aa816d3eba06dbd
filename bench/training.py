"""How fast the transformer trains: our step against GPT-2 of transformers and a plain stack of GPT layers, in one run.

    python bench/training.py                  # about ten minutes on 2 cores, half of it compiling
    python bench/training.py --quick          # a self-test at a tiny shape
    python bench/training.py --device cuda --batch-size 32 --hidden-size 1024 --num-layers 24 --num-heads 16
    python bench/training.py --systems "GPT-2, bfloat16" "ours, bfloat16, compiled"    # these alone

A step is the loss, its gradient, clipping and the optimizer. Systems take turns, and medians are taken. Peak memory is
that of a step above what lies there before it (weights and optimizer state of all systems): on a GPU what PyTorch
allocates, on Linux what the process holds, as far as the system lets it be asked.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.files import atomic_write_text
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.config import ComputedPrecision, LossScaleConfig, TokenLossConfig, TrainingConfig
from cogview.training.flops import flops_per_token
from cogview.training.precision import autocast
from cogview.training.stepper import Stepper
from cogview.training.transformer import TransformerTask
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from environment import RESULTS, describe, peak_bytes_of, seconds_of

SCALE = LossScaleConfig(initial=256.0)
"""Low enough for no step to overflow, for a step that is skipped takes less time."""

RIVALS = {"float32": "transformers GPT-2, float32", "bfloat16": "transformers GPT-2, bfloat16"}
"""What each precision of ours is compared with; halves of any kind with autocast to bfloat16."""

TARGETS = {"ours, float32": 1.2, "ours, bfloat16, compiled": 2.0}
"""How many times as fast as its rival a system has to be."""

PLAIN_COMPILED = "plain GPT, bfloat16, compiled"


class GPT2(nn.Module):
    """GPT-2 of transformers with fused attention, without dropout, which ours has none of either."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = GPT2Config(
            vocab_size=config.vocabulary_size,
            n_positions=config.num_positions,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_inner=config.mlp_factor * config.hidden_size,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
            attn_implementation="sdpa",
        )
        self.model = GPT2LMHeadModel(shape).train()

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of all targets, as transformers computes it."""
        # It shifts labels by one itself, unless it is told that they are shifted.
        return self.model(input_ids=tokens, labels=targets, shift_labels=targets).loss


def rival_of(precision: ComputedPrecision) -> str:
    """Return the name of the system that one of ours is compared with."""
    return RIVALS["float32" if precision == "float32" else "bfloat16"]


class PlainGPT(nn.Module):
    """GPT-2's layers as the field writes them down, with PyTorch's fused attention and all logits at once."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d, self.num_heads = config.hidden_size, config.num_heads
        self.tokens = nn.Embedding(config.vocabulary_size, d)
        self.positions = nn.Embedding(config.num_positions, d)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm_1": nn.LayerNorm(d),
                    "query_key_value": nn.Linear(d, 3 * d),
                    "attention_output": nn.Linear(d, d),
                    "norm_2": nn.LayerNorm(d),
                    "mlp_inner": nn.Linear(d, config.mlp_factor * d),
                    "mlp_output": nn.Linear(config.mlp_factor * d, d),
                }
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(d)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_residual = name.endswith("output.weight")
                nn.init.normal_(
                    parameter, std=0.02 / (math.sqrt(2 * config.num_layers) if is_residual else 1)
                )

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of all targets."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            heads = layer["query_key_value"](layer["norm_1"](x)).unflatten(-1, (3, self.num_heads, -1))
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + layer["attention_output"](attended.transpose(1, 2).flatten(2))
            inner = F.gelu(layer["mlp_inner"](layer["norm_2"](x)), approximate="tanh")
            x = x + layer["mlp_output"](inner)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class System:
    """One way of doing a training step.

    Args:
        name: for the table.
        module: what is trained.
        loss: of a fixed batch.
        precision: what a run of ours would call it.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        loss: Callable[[], Tensor],
        precision: ComputedPrecision,
        device: torch.device,
    ) -> None:
        self.name, self.loss, self.precision, self.device = name, loss, precision, device
        self.stepper = Stepper(module, TrainingConfig(num_steps=1, batch_size=1, loss_scale=SCALE), precision)

    def step(self) -> None:
        """Do one step."""
        with autocast(self.precision, self.device):
            loss = self.loss()
        self.stepper.backward(loss, 1.0)
        self.stepper.step()


def build_systems(
    config: TransformerConfig,
    template: TextToImageTemplate,
    batch_size: int,
    device: torch.device,
    chosen: tuple[str, ...] = (),
) -> list[System]:
    """Return what is compared, or of it what is chosen; each has weights of its own and the same batch."""
    random = np.random.default_rng(0)
    vocabulary = template.vocabulary
    pairs = [
        (
            random.integers(vocabulary.num_text_pieces, size=template.max_text_pieces),
            random.integers(vocabulary.num_image_codes, size=template.num_codes_per_image),
        )
        for _ in range(batch_size)
    ]
    made = template.batch(pairs)
    tokens, targets = (torch.from_numpy(array).to(device) for array in (made.tokens, made.targets))

    def plain(name: str, precision: ComputedPrecision, compiled: bool = False) -> System:
        module = PlainGPT(config)
        loss = torch.compile(module.loss, dynamic=False) if compiled else module.loss
        return System(name, module, lambda: loss(tokens, targets), precision, device)

    def gpt2(name: str, precision: ComputedPrecision) -> System:
        module = GPT2(config)
        return System(name, module, lambda: module.loss(tokens, targets), precision, device)

    def ours(
        name: str, precision: ComputedPrecision, compiled: bool = True, normaliser: str = "vocabulary"
    ) -> System:
        module = Transformer(config)
        batches = SimpleNamespace(template=template, batch=lambda step: made)
        task = TransformerTask(module, batches, TokenLossConfig(normaliser=normaliser))
        batch = {key: tensor.to(device) for key, tensor in task.batch(0).items()}
        loss = torch.compile(task.loss, dynamic=False) if compiled else task.loss
        return System(name, module, lambda: loss(batch)[0], precision, device)

    makers: dict[str, Callable[[str], System]] = {
        RIVALS["float32"]: partial(gpt2, precision="float32"),
        RIVALS["bfloat16"]: partial(gpt2, precision="bfloat16"),
        "plain GPT, float32": partial(plain, precision="float32"),
        "plain GPT, bfloat16": partial(plain, precision="bfloat16"),
        PLAIN_COMPILED: partial(plain, precision="bfloat16", compiled=True),
        "ours, float32": partial(ours, precision="float32", compiled=False),
        "ours, bfloat16": partial(ours, precision="bfloat16", compiled=False),
        "ours, bfloat16, compiled": partial(ours, precision="bfloat16"),
        "ours, bfloat16, compiled, legal ids only": partial(ours, precision="bfloat16", normaliser="legal"),
        "ours, bfloat16 O2, compiled": partial(ours, precision="bfloat16_o2"),
    }
    if device.type == "cuda":  # a CPU computes fp16 more than a hundred times slower
        makers["ours, float16 O2, compiled"] = partial(ours, precision="float16_o2")
    unknown = set(chosen) - set(makers)
    if unknown:
        raise SystemExit(f"there are no systems {sorted(unknown)}; there are {list(makers)}")
    with device:  # where large weights are drawn faster
        return [make(name) for name, make in makers.items() if not chosen or name in chosen]


def peak_flops(device: torch.device, size: int, rounds: int = 7) -> float:
    """Return the bf16 operations a second of a large square product, the median of some rounds."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    seconds_of(lambda: a @ b, device)
    return 2 * size**3 / statistics.median(seconds_of(lambda: a @ b, device) for _ in range(rounds))


def mean_legal_rows(template: TextToImageTemplate) -> float:
    """Return how many rows of the head a token of a full sequence is scored against, where only legal ids are."""
    vocabulary = template.vocabulary
    image = template.num_codes_per_image * len(vocabulary.image_codes)
    text = (template.max_text_pieces + 1) * (vocabulary.num_tokens - vocabulary.text_pieces.start)
    return (image + text) / template.max_tokens


def _ratio(seconds: float | None, ours: float) -> float | None:
    return None if seconds is None else seconds / ours


def _told(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def main(
    *,
    quick: bool = False,
    rounds: int = 5,
    batch_size: int = 2,
    num_layers: int = 8,
    hidden_size: int = 512,
    num_heads: int = 8,
    device: str = "cpu",
    systems: tuple[str, ...] = (),
    out: str = "",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        quick: a tiny shape and few steps, only to see that everything runs.
        rounds: timed steps of each system, in turns; the median is reported.
        batch_size: sequences a step, of 60 text pieces and 1,024 codes.
        num_layers: blocks of the transformer.
        hidden_size: its width.
        num_heads: its heads.
        device: "cpu" or "cuda".
        systems: which to measure, by name; all by default.
        out: name of the result; the device's kind by default.
    """
    codes, pieces, side, text = (64, 50, 4, 8) if quick else (8192, 50_000, 32, 60)
    if quick:
        rounds, num_layers, hidden_size, num_heads = 2, 2, 64, 2
    vocabulary = Vocabulary(num_image_codes=codes, num_text_pieces=pieces)
    template = TextToImageTemplate(
        vocabulary=vocabulary, grid_rows=side, grid_columns=side, max_text_pieces=text
    )
    config = TransformerConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        vocabulary_size=vocabulary.size,
        num_positions=template.num_positions,
    )
    torch.manual_seed(0)
    place = torch.device(device)
    environment = describe(place)
    measured = build_systems(config, template, batch_size, place, systems)
    for system in measured:
        seconds = seconds_of(system.step, place)
        print(f"{system.name}: first step {seconds:.1f} s", file=sys.stderr)
    times: dict[str, list[float]] = {system.name: [] for system in measured}
    for _ in range(rounds):
        for system in measured:
            times[system.name].append(seconds_of(system.step, place))
    peaks = {system.name: peak_bytes_of(system.step, place) for system in measured}
    peak = peak_flops(place, 128 if quick else 4096 if device == "cpu" else 16_384)
    num_tokens = batch_size * template.max_tokens

    def work(name: str) -> float:
        num_rows = mean_legal_rows(template) if "legal" in name else config.vocabulary_size
        return flops_per_token(config, template.max_tokens, num_rows) * num_tokens

    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    rivals = {system.name: medians.get(rival_of(system.precision)) for system in measured}
    plain_compiled = medians.get(PLAIN_COMPILED)
    figures: list[dict[str, Any]] = [
        {
            "system": name,
            "tokens_per_second": num_tokens / statistics.median(seconds),
            "against_gpt2_of_its_precision": _ratio(rivals[name], medians[name]),
            "wanted_against_gpt2": TARGETS.get(name),
            "against_plain_bfloat16_compiled": _ratio(plain_compiled, medians[name]),
            "share_of_bfloat16_peak": work(name) / statistics.median(seconds) / peak,
            "peak_gigabytes": None if peaks[name] is None else peaks[name] / 1e9,
        }
        for name, seconds in times.items()
    ]
    print(
        "| system | tokens/s | times GPT-2 alike | wanted | times plain bf16 compiled | share of bf16 peak | "
        "GB of a step |\n|---|---|---|---|---|---|---|"
    )
    for figure in figures:
        print(
            f"| {figure['system']} | {figure['tokens_per_second']:.0f} | "
            f"{_told(figure['against_gpt2_of_its_precision'])} | {figure['wanted_against_gpt2'] or '-'} | "
            f"{_told(figure['against_plain_bfloat16_compiled'])} | {figure['share_of_bfloat16_peak']:.0%} | "
            f"{_told(figure['peak_gigabytes'])} |"
        )
    result = {
        "benchmark": "training",
        "environment": environment,
        "shape": asdict(config),
        "batch_size": batch_size,
        "tokens_per_sequence": template.max_tokens,
        "rounds": rounds,
        "bfloat16_product_gflops": peak / 1e9,
        "figures": figures,
    }
    text = json.dumps(result, indent=2)  # in the self-test too
    if not quick:
        path = RESULTS / f"training-{out or device}.json"
        atomic_write_text(path, text + "\n")
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
