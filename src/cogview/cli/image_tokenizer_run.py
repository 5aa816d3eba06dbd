"""A run of stage 1: what `cogview train image-tokenizer` does once its options are read."""

import importlib
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cogview.cli.report import progress_bar
from cogview.cli.training_run import run_training
from cogview.data.image_array import ImageArray, splits_of
from cogview.errors import UsageError
from cogview.evaluation.backbone import UNFITTING, unfitting
from cogview.evaluation.distances import perceptual_distance
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.evaluation.reconstruction import evaluate_reconstruction, in_batches, reconstruction_grid
from cogview.files import atomic_write_bytes, sha256_of
from cogview.image.kept import KeptPictures
from cogview.image.pixels import as_float
from cogview.recipes.config import ImageTokenizerRecipe, VQGANRecipe
from cogview.training.image_tokenizer import ImageTokenizerTask
from cogview.training.vqgan import Perception, VQGANTask

HELD_OUT_SPLITS = ("held-out-composition", "held-out-object", "held-out-style")
NUM_SAMPLES = 8
MAX_EVALUATED = 512
MAX_KEPT = 64
"""Pictures of each held-out split by which the exported tokenizer knows what it keeps."""


def train_image_tokenizer(
    recipe: ImageTokenizerRecipe | VQGANRecipe,
    data: Path,
    out: Path,
    *,
    resume: bool,
    as_json: bool,
    perception: Literal["efficientnet", "lpips"] = "efficientnet",
    backbone: Path | None = None,
) -> None:
    """Train an image tokenizer on a folder of pictures, with grids of reconstructions on the way.

    Args:
        recipe: shape and training.
        data: an image folder, a folder of WebDataset tars, or one tar.
        out: the run folder.
        resume: go on with the run that lies there.
        as_json: print the result as JSON.
        perception: what a VQGAN's perceptual loss is taken over.
        backbone: weights of EfficientNet-Lite0; those of the package by default.
    """
    size_pixels = recipe.size_pixels
    splits = splits_of(data)
    images = _open(data, size_pixels, "train")
    held_out = {split: _open(data, size_pixels, split) for split in HELD_OUT_SPLITS if split in splits}
    training = recipe.training
    how: dict[str, int] = {"seed": training.seed, "batch_size": training.batch_size}
    if isinstance(recipe, VQGANRecipe):
        seen = _perception_of(perception, backbone) if recipe.vqgan.perceptual_weight else None
        task: ImageTokenizerTask = VQGANTask(recipe.vqgan, images, **how, perception=seen)
        shape: dict[str, Any] = {"vqgan": recipe.vqgan}
        if seen is not None:
            shape["perception"] = _seen_by(perception, backbone)
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
            tokenizer.held_out = KeptPictures.of(map(tokenizer.kept_db, as_images))
        tokenizer.save_pretrained(folder, dtype=torch.float16)

    run_training(
        task,
        training,
        out,
        resume=resume,
        recipe={
            **shape,
            "size_pixels": size_pixels,
            "num_pictures": len(images),
            "pictures": images.fingerprint,
        },
        sample=sample,
        export=export,
        evaluate=evaluate,
        as_json=as_json,
    )


def _perception_of(name: Literal["efficientnet", "lpips"], backbone: Path | None) -> Perception:
    if name == "efficientnet":
        return open_efficientnet(backbone)
    if backbone is not None:
        raise UsageError(
            "--backbone has weights of EfficientNet-Lite0, which --perception lpips does not use"
        )
    return open_lpips()


def _seen_by(name: Literal["efficientnet", "lpips"], backbone: Path | None) -> str:
    """Return what the perceptual loss is taken over, to be kept with the run: another is another run."""
    weights = (backbone or find_weights()) if name == "efficientnet" else None
    return f"{name} {sha256_of(weights)[:16]}" if weights else name


def open_lpips() -> Perception:
    """Return the distance of the package lpips over VGG, on whatever device the pictures are.

    Raises:
        UsageError: the package, or torchvision, is not installed.
    """
    try:
        lpips = importlib.import_module("lpips")
    except UNFITTING as error:
        raise unfitting("--perception lpips needs the package lpips", "lpips", error) from error
    network = lpips.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)

    def perception(copies: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        return network.to(originals.device)(copies, originals).flatten()

    return perception


def open_efficientnet(backbone: Path | None) -> Perception:
    """Return the perceptual distance of a backbone, on whatever device the pictures are.

    Args:
        backbone: weights of EfficientNet-Lite0; those that the package brings along by default.

    Raises:
        UsageError: there are none.
        CogViewError: the file holds something else.
    """
    weights = backbone or find_weights()
    if weights is None:
        raise UsageError(
            "a perceptual loss needs a network that sees the pictures: pip install 'cogview[eval]', give its weights "
            "with --backbone, or leave it out with --vqgan.perceptual-weight 0"
        )
    network = load_efficientnet(weights)

    def perception(copies: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        seen = network.to(originals.device)
        return perceptual_distance(seen(originals).maps, seen(copies).maps)

    return perception


def _open(folder: Path, size_pixels: int, split: str) -> ImageArray:
    """Open the pictures that name a split or none, decoding them if that was not done before."""
    with progress_bar(f"reading {split}", "pictures") as move:
        return ImageArray.from_folder(folder, size_pixels, split, move)
