"""Training run of stage 1, the image tokenizer."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cogview.data.image_array import ImageArray, splits_of
from cogview.evaluation.reconstruction import evaluate_reconstruction, in_batches, reconstruction_grid
from cogview.files import atomic_write_bytes
from cogview.image.pixels import as_float
from cogview.image.reconstruction_quality import ReconstructionQuality
from cogview.recipes.config import ImageTokenizerRecipe, VQGANRecipe
from cogview.runs.perception import perception_identity, perception_of
from cogview.runs.progress_bar import progress_bar
from cogview.runs.training import DryRunResult, TrainingResult, carry_out
from cogview.runs.training_options import ImageTokenizerOptions, VQGANOptions
from cogview.training.image_tokenizer import ImageTokenizerTask
from cogview.training.vqgan import VQGANTask

HELD_OUT_SPLITS = ("held-out-composition", "held-out-object", "held-out-style")
NUM_SAMPLES = 8
MAX_EVALUATED = 512
MAX_KEPT = 64
"""Pictures of each held-out split for the exported tokenizer's fidelity."""


def train_image_tokenizer(
    recipe: ImageTokenizerRecipe | VQGANRecipe, options: ImageTokenizerOptions
) -> TrainingResult | DryRunResult | None:
    """Train an image tokenizer on a folder of pictures and write grids of reconstructions.

    Args:
        recipe: shape and training; a VQGAN needs `VQGANOptions`.
        options: its files.

    Returns:
        The result; None in all processes but the first.
    """
    data, out = options.data, options.out
    size_pixels = recipe.size_pixels
    splits = splits_of(data)
    images = open_images(data, size_pixels, "train")
    held_out = {split: open_images(data, size_pixels, split) for split in HELD_OUT_SPLITS if split in splits}
    training = recipe.training
    how: dict[str, int] = {"seed": training.seed, "batch_size": training.batch_size}
    if isinstance(recipe, VQGANRecipe):
        assert isinstance(options, VQGANOptions)
        seen = perception_of(options.perception, options.backbone) if recipe.vqgan.perceptual_weight else None
        task: ImageTokenizerTask = VQGANTask(recipe.vqgan, images, **how, perception=seen)
        shape: dict[str, Any] = {"vqgan": recipe.vqgan}
        if seen is not None:
            shape["perception"] = perception_identity(options.perception, options.backbone)
    else:
        task, shape = ImageTokenizerTask(recipe.vqvae, images, **how), {"vqvae": recipe.vqvae}
    shown = np.array(next(iter(held_out.values()), images).pixels[:NUM_SAMPLES])

    def sample(num_steps: int) -> None:
        grid = io.BytesIO()
        reconstruction_grid(task.tokenizer(), torch.from_numpy(shown).permute(0, 3, 1, 2)).save(grid, "PNG")
        atomic_write_bytes(out / "samples" / f"step-{num_steps:08d}.png", grid.getvalue())

    def evaluate() -> dict[str, dict[str, float]]:
        tokenizer = task.tokenizer()
        return {
            split: evaluate_reconstruction(tokenizer, in_batches(pictures.pixels[:MAX_EVALUATED]))
            for split, pictures in held_out.items()
        }

    def export(folder: Path) -> None:
        tokenizer = task.tokenizer()
        batches = [batch for each in held_out.values() for batch in in_batches(each.pixels[:MAX_KEPT])]
        if batches:
            as_images = (as_float(torch.tensor(batch).permute(0, 3, 1, 2)) for batch in batches)
            tokenizer.held_out = ReconstructionQuality.of(map(tokenizer.kept_db, as_images))
        tokenizer.save_pretrained(folder, dtype=torch.float16)

    return carry_out(
        task,
        training,
        options,
        recipe={
            **shape,
            "size_pixels": size_pixels,
            "num_pictures": len(images),
            "pictures": images.fingerprint,
        },
        sample=sample,
        export=export,
        evaluate=evaluate,
    )


def open_images(folder: Path, size_pixels: int, split: str) -> ImageArray:
    """Open the pictures of a split and those without one, decoding them if not cached."""
    with progress_bar(f"reading {split}", "pictures") as move:
        return ImageArray.from_folder(folder, size_pixels, split, move)
