"""What an adapter costs: switching to it, its file, drawing with it, and a training step of it beside a whole one.

    python bench/adapters.py

Wanted: switching under 5 ms, a file under 8 MB. The adapter's weights are random, of the shape that `cogview train
style bundled` trains; what they draw does not matter here.
"""

import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from cogview.files import atomic_write_json
from cogview.generation.pipeline import Pipeline
from cogview.models.adapters import save_task_model
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.recipes import style
from cogview.recipes.config import StyleRecipe
from cogview.runs.finetune import new_transformer
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.training.optimizer import build_optimizers
from cogview.training.transformer import TransformerTask
from cogview.transformer.adapter import AdaptedTransformer
from environment import RESULTS, describe, seconds_of

WANTED_SECONDS, WANTED_MEGABYTES = 0.005, 8.0
TEXT = "a cat to the left of a tree"
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomBatches:
    """The same random sequences at each step."""

    template: TextToImageTemplate
    batch_size: int

    def batch(self, step: int) -> TokenBatch:
        """Return them."""
        chance = np.random.default_rng(0)
        vocabulary = self.template.vocabulary
        return self.template.batch(
            [
                (
                    chance.integers(vocabulary.num_text_pieces, size=12),
                    chance.integers(vocabulary.num_image_codes, size=self.template.num_codes_per_image),
                )
                for _ in range(self.batch_size)
            ]
        )


@torch.no_grad()
def random_adapter(base: PretrainedModel, recipe: StyleRecipe, seed: int) -> TaskModel:
    """Return an adapter of the recipe's shape whose every weight matters a little."""
    assert recipe.adapter is not None
    adapted = AdaptedTransformer(base.transformer, recipe.adapter, seed)
    torch.manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.01)
    template = dataclasses.asdict(base.template)
    del template["vocabulary"]
    return TaskModel(task="style", transformer=adapted, template=template)


def step_of(base: PretrainedModel, recipe: StyleRecipe, batch_size: int) -> Any:
    """Return one training step of a recipe in float32, not compiled, as a function."""
    transformer = new_transformer(recipe, base.transformer, base.template.num_positions)
    task = TransformerTask(
        transformer, RandomBatches(template=base.template, batch_size=batch_size), recipe.token_loss
    )
    optimizers, batch = build_optimizers(transformer, recipe.training), task.batch(0)

    def step() -> None:
        torch.autograd.backward(task.loss(batch)[0])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def main(
    *, rounds: int = 5, num_candidates: int = 8, batch_size: int = 8, quick: bool = False, out: str = "cpu"
) -> None:
    """Measure, print and write the figures as JSON.

    Args:
        rounds: of each kind, in turns; medians are reported.
        num_candidates: pictures drawn at once.
        batch_size: sequences of a training step.
        quick: the least that shows that it runs; writes nothing.
        out: name of the result.
    """
    if quick:
        rounds, num_candidates, batch_size = 1, 1, 1
    environment, recipe = describe(CPU), style.bundled()
    model = load_pretrained(find_model_folder(None))
    pipe = Pipeline(model)
    seconds: dict[str, list[float]] = {}

    def measure(name: str, work: Any) -> None:
        seconds.setdefault(name, []).append(seconds_of(work, CPU))

    with tempfile.TemporaryDirectory() as temporary:
        for name, seed in (("first", 1), ("second", 2)):
            folder = Path(temporary) / name
            save_task_model(random_adapter(model, recipe, seed), folder, model)
            num_bytes = (folder / "model.safetensors").stat().st_size
            measure("load_from_file", lambda folder=folder, name=name: pipe.add_adapter(folder, name))
    pipe.generate_codes(TEXT, 1)  # prepares the base's weights
    for name in ("first", "second"):
        measure("prepare_once", lambda name=name: pipe.model.drawing(name))
    for _ in range(max(rounds, 20)):
        for name in ("first", "second", None):
            measure("switch", lambda name=name: pipe.model.drawing(name))
    for _ in range(rounds):
        for adapter in (None, "first"):
            kind = "draw_with" if adapter else "draw_without"
            measure(kind, lambda adapter=adapter: pipe.generate_codes(TEXT, num_candidates, adapter=adapter))
    steps = {
        "train_adapter": step_of(model, recipe, batch_size),
        "train_whole": step_of(model, dataclasses.replace(recipe, adapter=None), batch_size),
    }
    for number in range(rounds + 1):
        for name, step in steps.items():
            if number:
                measure(name, step)
            else:
                step()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    figures = {
        "seconds": medians,
        "largest_switch_seconds": max(seconds["switch"]),
        "drawing_with_over_without": medians["draw_with"] / medians["draw_without"],
        "adapter_step_over_whole_step": medians["train_adapter"] / medians["train_whole"],
        "megabytes": num_bytes / 1e6,
        "num_parameters": sum(
            each.numel() for each in pipe.adapters["first"].transformer.state_dict().values()
        ),
    }
    for name, value in (
        medians | {name: each for name, each in figures.items() if name != "seconds"}
    ).items():
        print(f"{name:>30} {value:,.5f}")
    assert figures["largest_switch_seconds"] < WANTED_SECONDS
    assert figures["megabytes"] < WANTED_MEGABYTES
    if not quick:
        shape = {
            "num_candidates": num_candidates,
            "batch_size": batch_size,
            "adapter": dataclasses.asdict(recipe)["adapter"],
        }
        atomic_write_json(
            RESULTS / f"adapters-{out}.json", {"environment": environment, "shape": shape, **figures}
        )


if __name__ == "__main__":
    tyro.cli(main)
