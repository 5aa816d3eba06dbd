"""The formulas of what training holds are what a real model, and a real step on this CPU, hold."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker

from cogview.planning.activations import PassShape, block_activations, end_activations
from cogview.planning.devices import find_device
from cogview.planning.moments import softmaxes
from cogview.planning.parameters import block_shapes, held_parameters, matrices_of, other_shapes
from cogview.planning.training import TrainingPlanner, work_of_a_sequence
from cogview.recipes import text_to_image
from cogview.recipes.config import TextToImageRecipe, TokenShape
from cogview.recipes.resolved import resolved
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.training.config import LossScaleConfig, TokenLossConfig
from cogview.training.precision import autocast
from cogview.training.stepper import Stepper
from cogview.training.transformer import TransformerTask
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.model import Transformer

CPU = torch.device("cpu")
SPARSE = {
    "attention_pattern": "three_region",
    "three_region": ThreeRegionConfig(block_tokens=16, key_window_blocks=2, num_text_and_pivot_tokens=40),
}


@dataclass(frozen=True, kw_only=True)
class FullText:
    """Batches of pictures with texts as long as can be."""

    template: TextToImageTemplate
    batch_size: int

    def batch(self, step: int) -> TokenBatch:
        text = np.zeros(self.template.max_text_pieces, dtype=np.int64)
        codes = np.zeros(self.template.num_codes_per_image, dtype=np.int64)
        return self.template.batch(self.batch_size * [(text, codes)])


def recipe_of(shape: dict[str, Any], training: dict[str, Any]) -> TextToImageRecipe:
    """Return a transformer of three layers whose sequences are longer than a head is wide."""
    recipe = text_to_image.tiny()
    return replace(
        recipe,
        transformer=replace(recipe.transformer, num_layers=3, hidden_size=128, **shape),
        token_loss=TokenLossConfig(),
        training=replace(recipe.training, batch_size=4, **training),
        made_for=TokenShape(num_image_codes=256, num_text_pieces=500, grid_rows=10, grid_columns=10),
    )


def started(recipe: TextToImageRecipe) -> tuple[TransformerTask, Stepper]:
    """Return what a run takes its steps with."""
    config, template = resolved(recipe)
    training = recipe.training
    transformer = Transformer(config)
    for block in transformer.modules():
        if isinstance(block, SandwichBlock):
            block.checkpointing = training.activation_checkpointing
    batches = FullText(template=template, batch_size=training.batch_size // training.num_micro_batches)
    task = TransformerTask(transformer, batches, recipe.token_loss)
    return task, Stepper(transformer, training, training.precision)


@pytest.mark.parametrize(
    "shape", [{}, {"layer_norm": "pre"}, {"layer_norm": "post", "mlp_factor": 3}, {"qk_norm": True}]
)
def test_parameters_have_the_shapes_of_the_models(shape: dict[str, Any]) -> None:
    config, _ = resolved(recipe_of(shape, {}))
    with torch.device("meta"):
        transformer = Transformer(config)
    real = Counter(tuple(parameter.shape) for parameter in transformer.parameters())
    assert Counter(config.num_layers * block_shapes(config) + other_shapes(config)) == real
    halves = block_shapes(config, tensor_parallel=2)
    assert sum(map(np.prod, matrices_of(halves))) == sum(map(np.prod, matrices_of(block_shapes(config)))) / 2


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.slow
def test_an_optimizer_holds_what_the_formula_says(optimizer: str) -> None:
    recipe = recipe_of({}, {"optimizer": optimizer})
    task, stepper = started(recipe)
    stepper.backward(task.loss(task.batch(0))[0], 1.0)
    stepper.step()
    states = [state for each in stepper.optimizers for state in each.state.values()]
    held = sum(tensor.nbytes for state in states for tensor in state.values())
    assert (
        sum(held_parameters(resolved(recipe)[0], "float32", recipe.training.optimizer)["optimizer"]) == held
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "bfloat16_o2"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"layer_norm": "pre"},
        {"layer_norm": "post"},
        {"norm_scope": "none"},
        {"qk_norm": True},
        {"attention": "relaxed"},
        {"attention": "plain"},
        {"dropout": 0.1},
        {"attention": "relaxed", "dropout": 0.1},
        SPARSE,
    ],
    ids=lambda shape: " ".join(shape) or "plain",
)
@pytest.mark.filterwarnings(
    "ignore:Mismatch dtype between input and weight:UserWarning"
)  # of norms in fp32 (torch 2.13)
@pytest.mark.slow
def test_a_pass_keeps_what_the_formula_says(shape: dict[str, Any], precision: str) -> None:
    recipe = recipe_of(shape, {"precision": precision})
    config, template = resolved(recipe)
    task, _ = started(recipe)
    parameters = {each.untyped_storage().data_ptr() for each in task.module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(precision, CPU):
        loss, _ = task.loss(task.batch(0))
    assert loss.requires_grad
    shape_of_pass = PassShape(
        config=config, template=template, num_sequences=4, precision=recipe.training.precision, is_cpu=True
    )
    [(n, v)] = softmaxes(shape_of_pass, recipe.token_loss)
    foretold = config.num_layers * block_activations(shape_of_pass) + end_activations(shape_of_pass)
    foretold += [4.0 * v * config.hidden_size, 4.0 * n * config.hidden_size]
    if precision == "bfloat16":
        foretold += held_parameters(config, "bfloat16", "adamw")["weight_copies"]
    assert sum(foretold) == pytest.approx(sum(kept.values()), rel=0.02)


@pytest.mark.parametrize(
    ("shape", "training"),
    [
        ({}, {}),
        ({"attention": "relaxed", "dropout": 0.1}, {"precision": "bfloat16"}),
        ({}, {"precision": "bfloat16_o2", "num_micro_batches": 2}),
        ({}, {"precision": "float16_o2", "loss_scale": LossScaleConfig(initial=1.0)}),
        ({}, {"optimizer": "muon", "num_micro_batches": 4}),
        ({"attention": "relaxed"}, {"activation_checkpointing": True}),
    ],
    ids=["plain", "dropout", "bfloat16_o2", "float16_o2", "muon", "again"],
)
@pytest.mark.slow
def test_the_largest_moment_is_that_of_pytorchs_own_tracker(
    shape: dict[str, Any], training: dict[str, Any]
) -> None:
    recipe = recipe_of(shape, training)
    config, template = resolved(recipe)
    task, stepper = started(recipe)
    num_micro_batches, batch = recipe.training.num_micro_batches, task.batch(0)
    tracker = MemTracker()

    def step() -> None:
        for _ in range(num_micro_batches):
            tracker.reset_mod_stats()  # it knows no second pass; the last one needs most
            with autocast(recipe.training.precision, CPU):
                loss, _ = task.loss(batch)
            stepper.backward(loss, 1 / num_micro_batches)
        stepper.step()

    step()
    tracker.track_external(task.module, *stepper.optimizers)
    with tracker:
        step()
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    masters = 4 * config.num_parameters if recipe.training.precision.endswith("_o2") else 0  # unseen by it
    planner = TrainingPlanner(recipe, config, template, find_device("cpu"))
    kinds = planner.memory(len(batch["tokens"])).bytes_by_kind
    foretold = sum(num_bytes for kind, num_bytes in kinds.items() if kind != "allocator")
    assert foretold == pytest.approx(snapshot["Total"] + masters, rel=0.05)


@pytest.mark.parametrize("shape", [{}, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("loss", [TokenLossConfig(), TokenLossConfig(normaliser="legal", text_weight=0.1)])
def test_work_is_what_a_run_counts(shape: dict[str, Any], loss: TokenLossConfig) -> None:
    recipe = replace(recipe_of(shape, {}), token_loss=loss)
    task, _ = started(recipe)
    batch = task.batch(0)
    assert 4 * work_of_a_sequence(recipe, *resolved(recipe)) == pytest.approx(task.work(batch)["flops"])
