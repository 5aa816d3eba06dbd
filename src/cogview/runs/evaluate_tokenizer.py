"""Evaluation of an image tokenizer's reconstructions."""

import warnings

from cogview.data.check import MAX_LISTED
from cogview.errors import UsageError
from cogview.evaluation.efficientnet import find_weights
from cogview.evaluation.pictures import PictureBatches
from cogview.evaluation.reconstruction import evaluate_with_grid
from cogview.files import atomic_file
from cogview.generation.devices import resolve_device
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_figures import open_backbone
from cogview.runs.evaluation_options import TokenizerEvaluationOptions
from cogview.runs.progress_bar import progress_bar
from cogview.runs.tokenizers import fitting_size, open_image_tokenizer

_NUM_SHOWN = 32


def evaluate_tokenizer(options: TokenizerEvaluationOptions) -> EvaluationResult:
    """Measure how well an image tokenizer reconstructs pictures, and the cost of its codes.

    Args:
        options: pictures and image tokenizer.

    Returns:
        The figures, and the grid unless it cannot be written.
    """
    grid = options.grid
    if grid.is_dir():
        raise UsageError(f"{grid} is a folder: give the name of a PNG with --grid")
    tokenizer = open_image_tokenizer(options.image_tokenizer, resolve_device(options.device))
    size_pixels = fitting_size(options.size_pixels, tokenizer, options.image_tokenizer)
    network = backbone_facts = None
    weights = options.backbone or find_weights()
    if weights is None:
        warnings.warn(
            "The perceptual and the Frechet distance are left out, for want of a network that sees the pictures: "
            "pip install '.[eval]' in the checkout, or give its weights with --backbone.",
            stacklevel=1,
        )
    else:
        network, backbone_facts = open_backbone("efficientnet_lite0", weights, tokenizer.device)
    with progress_bar("measuring", "pictures") as move:
        pictures = PictureBatches(
            options.data,
            size_pixels,
            split=options.split,
            max_pictures=options.max_pictures,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            progress=move,
        )
        figures, reconstructions = evaluate_with_grid(tokenizer, pictures, network, _NUM_SHOWN)
    files = {"grid": grid}
    try:
        with atomic_file(grid) as file:
            reconstructions.save(file, "PNG")
    except OSError as error:  # the figures may have taken hours: keep them
        files = {}
        warnings.warn(
            f"{grid} cannot be written ({error.strerror}), so the grid is left out: give another --grid",
            stacklevel=1,
        )
    facts = {
        "data": str(options.data),
        "split": options.split,
        "size_pixels": size_pixels,
        "num_pictures": pictures.num_pictures,
        "num_problems": len(pictures.problems),
        "problems": [{"where": each.where, "reason": each.reason} for each in pictures.problems[:MAX_LISTED]],
        "image_tokenizer": tokenizer.fingerprint,
        "num_codes": tokenizer.num_codes,
        "backbone": backbone_facts,
        "figures": figures,
    }
    return EvaluationResult(facts=facts, files=files)
