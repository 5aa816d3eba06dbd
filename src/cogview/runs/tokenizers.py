"""Tokenizers of a run: from a path on the command line, or the bundled ones."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.data.shards import MANIFEST, read_manifest, text_case_of
from cogview.errors import CogViewError, UsageError
from cogview.files import read_bounded
from cogview.image.config import FOLDER_NAME
from cogview.models.config import MODEL_FORMAT
from cogview.plain_json import parse_json
from cogview.text.config import CaptionCase

if TYPE_CHECKING:
    import torch

    from cogview.image.tokenizer import ImageTokenizer
    from cogview.text.tokenizer import TextTokenizer

TEXT_TOKENIZER = "text.model"
IMAGE_TOKENIZER = FOLDER_NAME
_BUNDLED_SIZE_PIXELS = 128


def open_text_tokenizer(path: Path | None) -> "TextTokenizer":
    """Read a text tokenizer.

    Args:
        path: a SentencePiece or YouTokenToMe file, or a model folder, run or tokens that hold one; None for the
            bundled one.
    """
    from cogview.models.config import BUNDLED_FOLDER
    from cogview.text.tokenizer import TextTokenizer

    path = path or BUNDLED_FOLDER
    if path.is_dir():
        in_run = path / "model" / TEXT_TOKENIZER
        path = in_run if in_run.is_file() else path / TEXT_TOKENIZER
    return TextTokenizer.from_file(path)


def text_case_beside(path: Path | None) -> CaptionCase:
    """Return how captions are read by the model, or for the tokens, that a text tokenizer is from.

    Args:
        path: as `open_text_tokenizer` takes it.
    """
    if path is not None and (path / MANIFEST).is_file():
        return text_case_of(read_manifest(path))
    return "lower" if _config_of_model(path).get("text_case") == "lower" else "as_written"


def _config_of_model(path: Path | None) -> dict[str, Any]:
    """Return the config of the model in a folder or run; empty if there is none."""
    for folder in (path / "model", path) if path is not None else ():
        with suppress(OSError, ValueError):
            config = parse_json(read_bounded(folder / "config.json"))
            if isinstance(config, dict) and config.get("format") == MODEL_FORMAT:
                return config
    return {}


def unless_bundled(path: Path) -> Path | None:
    """Return a path, or None for the word `bundled`, unless a file here has this name."""
    return None if path == Path("bundled") and not path.exists() else path


def open_image_tokenizer(
    path: Path | None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | None" = None,
) -> "ImageTokenizer":
    """Read an image tokenizer.

    Args:
        path: its folder, the run that trained it, or a model folder or tokens that hold one; None for the bundled one.
        device: to load it to.
        dtype: precision of its convolutions, by default float32.

    Raises:
        CogViewError: there is none.
    """
    from cogview.image.tokenizer import load_image_tokenizer
    from cogview.models.config import BUNDLED_FOLDER

    if path is None:
        path = BUNDLED_FOLDER
        if not (path / IMAGE_TOKENIZER).is_dir():
            raise CogViewError("This installation has no bundled image tokenizer: give --image-tokenizer.")
    return load_image_tokenizer(path, device, dtype)


def fitting_size(size_pixels: int | None, tokenizer: "ImageTokenizer", path: Path | None) -> int:
    """Return the side in pixels of the pictures to encode.

    Args:
        size_pixels: the requested side; None for that of the model or run it is from, if known, else 128.
        tokenizer: the image tokenizer.
        path: its origin, as `open_image_tokenizer` takes it.

    Raises:
        UsageError: the side is not a multiple of the downsampling factor.
    """
    if size_pixels is None:
        size_pixels = _size_learnt(path, tokenizer.downsampling_factor)
    if size_pixels < 1 or size_pixels % tokenizer.downsampling_factor:
        raise UsageError(
            f"size_pixels must be a multiple of {tokenizer.downsampling_factor}, the pixels of a code, "
            f"got {size_pixels}"
        )
    return size_pixels


def _size_learnt(path: Path | None, pixels_per_code: int) -> int:
    try:
        if model := _config_of_model(path):
            return int(model["template"]["grid_rows"]) * pixels_per_code
        run = parse_json(read_bounded(path / "config.json")) if path else {}
        return int(run["recipe"]["size_pixels"])
    except (OSError, ValueError, KeyError, TypeError):
        return _BUNDLED_SIZE_PIXELS
