"""`cogview train image-tokenizer`: learns the codes that pictures are made of."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cogview.recipes.config import ImageTokenizerRecipe

if TYPE_CHECKING:
    from cogview.data.image_array import ImageArray

RECIPES = "cogview.recipes.image_tokenizer"

_NUM_SAMPLES = 8
_NUM_EVALUATED = 512
_HELD_OUT_SPLITS = ("held-out-composition", "held-out-object", "held-out-style")


def run(
    recipe: Annotated[ImageTokenizerRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn the codes that pictures are made of.

    Args:
        recipe: shape and training of the image tokenizer.
        data: an image folder, with metadata.jsonl; of one that has splits, the split "train" is learnt from.
        out: the run folder to make; its model/ will be the image tokenizer.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    import io

    import numpy as np
    import torch

    from cogview.cli.training_run import run_training
    from cogview.files import atomic_write_bytes
    from cogview.training.image_tokenizer import (
        ImageTokenizerTask,
        evaluate_reconstruction,
        reconstruction_grid,
    )

    splits = _splits(data)
    images = _open(data, recipe.size_pixels, "train" if "train" in splits else None)
    held_out = {
        split: _open(data, recipe.size_pixels, split) for split in _HELD_OUT_SPLITS if split in splits
    }
    training = recipe.training
    task = ImageTokenizerTask(recipe.vqvae, images, seed=training.seed, batch_size=training.batch_size)
    shown = next(iter(held_out.values()), images).pixels[:_NUM_SAMPLES]
    shown_tensor = torch.from_numpy(np.array(shown)).permute(
        0, 3, 1, 2
    )  # a copy: the array on disk is read-only

    def sample(num_steps: int) -> None:
        grid = io.BytesIO()
        reconstruction_grid(task.tokenizer(), shown_tensor).save(grid, "PNG")
        atomic_write_bytes(out / "samples" / f"step-{num_steps:08d}.png", grid.getvalue())

    def evaluate() -> dict[str, dict[str, float]]:
        tokenizer = task.tokenizer()
        return {
            split: evaluate_reconstruction(tokenizer, pictures.pixels[:_NUM_EVALUATED])
            for split, pictures in held_out.items()
        }

    run_training(
        task,
        training,
        out,
        resume=resume,
        recipe={"vqvae": recipe.vqvae, "size_pixels": recipe.size_pixels, "num_pictures": len(images)},
        sample=sample,
        export=lambda folder: task.tokenizer().save_pretrained(folder, dtype=torch.float16),
        evaluate=evaluate,
        as_json=json,
    )


def _splits(folder: Path) -> set[str]:
    """Return the splits that an image folder's lines name."""
    from cogview.data.image_array import picture_names
    from cogview.errors import CogViewError

    found = set()
    for split in ("train", *_HELD_OUT_SPLITS):
        try:
            picture_names(folder, split)
            found.add(split)
        except CogViewError:
            continue  # what else may be wrong with the folder is said when all of it is opened
    return found


def _open(folder: Path, size_pixels: int, split: str | None) -> "ImageArray":
    """Open the pictures of a split, decoding them if that was not done before."""
    from cogview.cli.report import progress_bar
    from cogview.data.image_array import ImageArray

    with progress_bar(f"reading {split or 'all'}", "pictures") as move:
        return ImageArray.from_folder(folder, size_pixels, split, move)
