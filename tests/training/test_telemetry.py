"""What a run tells of its inside: largest values by layer, and the share of the device that it uses."""

import itertools
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_task import tiny_config

from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.config import LossScaleConfig, TokenLossConfig
from cogview.training.flops import flops_per_token, peak_flops
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.progress import Pace
from cogview.training.telemetry import NUM_QUERIES, largest_score, largest_values
from cogview.training.transformer import TransformerTask
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import count_text, draw_regions

TEMPLATE = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=12, num_text_pieces=20),
    grid_rows=2,
    grid_columns=3,
    max_text_pieces=5,
)


def transformer(**changes: object) -> Transformer:
    torch.manual_seed(0)
    config = {
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "vocabulary_size": TEMPLATE.vocabulary.size,
        "num_positions": TEMPLATE.num_positions,
        **changes,
    }
    return Transformer(TransformerConfig(**config))


def task(model: Transformer) -> TransformerTask:
    def batch(step: int) -> object:
        random = np.random.default_rng(step)
        pairs = [(random.integers(0, 20, num), random.integers(0, 12, (2, 3))) for num in (1, 5, 3, 2)]
        return TEMPLATE.batch(pairs)

    batches = SimpleNamespace(template=TEMPLATE, batch=batch)
    return TransformerTask(model, batches, TokenLossConfig(normaliser="legal"))


@pytest.mark.parametrize("attention", ["fused", "relaxed"])
def test_largest_values_are_those_of_the_plain_formulas(attention: str) -> None:
    model = transformer(attention=attention, dropout=0.5).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    batch = task(model).batch(0)
    found = largest_values(model, batch["tokens"], batch["positions"])
    assert list(found) == [
        f"{name}/0{layer}" for layer in range(2) for name in ("attention_score_max", "main_branch_max")
    ]
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model.eval()
    x = model.embedding(batch["tokens"], batch["positions"])
    for number, block in enumerate(model.blocks):
        projected = block.attention.query_key_value(block.attention_input_norm(x))
        query, key, _ = projected.view(*x.shape[:2], 3, 2, 16).unbind(2)
        largest = 0.0
        for head in range(2):
            for row in range(len(x)):
                for t in range(x.shape[1]):
                    scores = key[row, : t + 1, head] @ query[row, t, head] / 4
                    largest = max(largest, scores.abs().max().item())
        x = block(x)
        assert found[f"attention_score_max/0{number}"].item() == pytest.approx(largest, rel=1e-5)
        assert found[f"main_branch_max/0{number}"].item() == pytest.approx(x.abs().max().item(), rel=1e-6)


def test_a_sparse_transformer_tells_of_the_keys_that_its_queries_see() -> None:
    regions = ThreeRegionConfig(
        block_tokens=2,
        key_window_blocks=1,
        num_text_and_pivot_tokens=9,
        image_start_token=TEMPLATE.vocabulary.separator("BOI1"),
        num_image_tokens=6,
    )
    model = transformer(attention_pattern="three_region", three_region=regions, dropout=0.5).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    batch = task(model).batch(0)
    tokens, positions = batch["tokens"], batch["positions"]
    state = torch.get_rng_state()
    found = largest_values(model, tokens, positions)
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    num_text = count_text(tokens, regions.image_start_token)
    drawn = draw_regions(num_text, torch.zeros_like(num_text), tokens.shape[1], 2, regions)
    x = model.embedding(tokens, positions)
    num_hidden = 0
    for number, (block, seen) in enumerate(zip(model.blocks, drawn, strict=True)):
        query, key, _ = block.attention.heads(block.attention_input_norm(x))
        largest = 0.0
        for row, query_place in itertools.product(range(len(x)), range(x.shape[1])):
            first = query_place // 2 * 2
            slots = [place for place in seen.places[row].tolist() if place < first]
            keys = [*slots, *range(first, query_place + 1)]
            num_hidden += query_place + 1 - len(keys)
            scores = (key[row, :, keys] @ query[row, :, query_place, :, None]).squeeze(2) / 4
            largest = max(largest, scores.abs().max().item())
        x = block(x, pattern=seen)
        assert found[f"attention_score_max/0{number}"].item() == pytest.approx(largest, rel=1e-5)
        assert found[f"main_branch_max/0{number}"].item() == pytest.approx(x.abs().max().item(), rel=1e-6)
    assert num_hidden > 20  # it is sparse


_COMPILED = """
import torch
from cogview.training.telemetry import largest_values
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
compiled = []
def count(graph, inputs):
    compiled.append(graph)
    return graph.forward
config = TransformerConfig(num_layers=10, hidden_size=16, num_heads=2, vocabulary_size=9, num_positions=5)
model = Transformer(config)
tokens = positions = torch.arange(5)[None]
plainly = largest_values(model, tokens, positions)
for block in model.blocks:
    block.compile(backend=count, dynamic=False)
model.hidden_states(tokens, positions)
num_compiled = len(compiled)
assert num_compiled > 0
assert largest_values(model, tokens, positions) == plainly
assert len(compiled) == num_compiled
model.hidden_states(tokens, positions)
assert len(compiled) == num_compiled
"""


@pytest.mark.slow
def test_blocks_that_are_compiled_are_not_compiled_again_to_look_into_them() -> None:
    """In a process of its own, since types are not checked in what is compiled."""
    done = subprocess.run([sys.executable, "-c", _COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scores_of_a_long_sequence_are_those_of_some_queries_and_never_of_the_future() -> None:
    query, key = torch.ones(1, 1, 200, 4), torch.ones(1, 1, 200, 4)
    key[0, 0, 100:] = 50.0
    query[0, 0, 100:] = 0.0
    assert largest_score(query, key).item() == 2.0
    query[0, 0, 199] = -3.0  # the last is always among them
    assert largest_score(query, key).item() == 300.0
    assert NUM_QUERIES == 64


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16_o2"])
@pytest.mark.slow
def test_a_run_of_the_transformer_tells_all_of_it(tmp_path: Path, precision: str) -> None:
    config = tiny_config(
        num_steps=8,
        batch_size=4,
        precision=precision,
        peak_tflops=1e-3,
        learning_rate=1e-3,
        loss_scale=LossScaleConfig(initial=256.0),  # so few tokens have large gradients
    )
    train(task(transformer()), config, tmp_path)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [4, 8]
    for line in lines:
        assert {
            *("loss", "text_loss_nats", "image_loss_nats", "gradient_norm", "learning_rate"),
            *("num_rollbacks", "skipped_batches", "tokens_per_second", "mfu"),
            *(
                f"{name}/0{layer}"
                for name in ("main_branch_max", "attention_score_max")
                for layer in range(2)
            ),
        } <= line.keys()
        assert all(math.isfinite(value) for value in line.values())
        assert ({"loss_scale", "overflows"} <= line.keys()) == (precision == "float16_o2")
        assert line["main_branch_max/01"] > 0.5
        # 4 pictures of 6 codes, and 11 pieces with 4 separators; all weigh 1.
        assert line["tokens_per_second"] == line["items_per_second"]
        flops = task(transformer()).work(task(transformer()).batch(0))["flops"] / 39
        assert line["mfu"] == pytest.approx(line["tokens_per_second"] * flops / 1e9, rel=1e-2, abs=1e-5)


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.slow
def test_telemetry_does_not_change_the_run(tmp_path: Path) -> None:
    losses = []
    for log_every_steps in (1, 8):
        config = tiny_config(num_steps=8, batch_size=4, log_every_steps=log_every_steps)
        train(task(transformer(dropout=0.3)), config, tmp_path / str(log_every_steps))
        [path] = (tmp_path / str(log_every_steps) / "checkpoints").glob("step-00000008")
        losses.append((path / "model.safetensors").read_bytes())
    assert losses[0] == losses[1]


def test_rates_are_of_the_time_since_the_last_reading() -> None:
    pace = Pace(0.0, peak_flops=1e6)
    for _ in range(2):
        pace.count(1.5, "tokens", {"tokens": 2.0, "flops": 3.0})
    rates = pace.read()
    assert rates["tokens_per_second"] == pytest.approx(rates["items_per_second"] * 4 / 3, rel=1e-3)
    assert rates["mfu"] == pytest.approx(rates["tokens_per_second"] * 1.5 / 1e6, rel=1e-2, abs=1e-5)
    assert "mfu" not in Pace(0.0).read()


def test_the_formula_counts_six_operations_a_weight() -> None:
    config = TransformerConfig(num_layers=48, hidden_size=2560, num_heads=40)
    per_token = flops_per_token(config, 1_088, 58_240)
    assert per_token == pytest.approx(6 * (config.num_parameters - 1089 * 2560) + 6 * 48 * 2560 * 1_088)
    assert per_token == pytest.approx(24.8e9, rel=0.03)


@pytest.mark.slow
def test_the_peak_is_asked_known_or_measured_but_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert peak_flops("auto", cpu, "bfloat16") is None
    assert peak_flops(2.5, cpu, "float32") == 2.5e12
    measured = peak_flops("measure", cpu, "float32")
    assert measured is not None
    assert 1e9 < measured < 1e15
    for name, tflops in (
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("Tesla T4", 65.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("GPU of tomorrow", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops("auto", cuda, "float16_o2") == (tflops and tflops * 1e12)
        assert peak_flops("auto", cuda, "float32") is None
