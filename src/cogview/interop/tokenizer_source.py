"""Image tokenizers of other projects, from the tensors of a file and the configuration beside it."""

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.interop.diffusers_vqmodel import TITLE, VQMODEL, PixelRange, convert_vqmodel, is_vqmodel
from cogview.interop.other_projects import kind_of_folder, project_of, read_foreign_config
from cogview.interop.tokenizer_layouts import convert_image_tokenizer, find_layout
from cogview.interop.weights import ConvertedTokenizer


def convert_tensors(
    source: Path, tensors: Mapping[str, Tensor], pixel_range: PixelRange | None
) -> ConvertedTokenizer:
    """Convert the image tokenizer among the tensors of a file.

    Args:
        source: the file, or the index of several.
        tensors: by name.
        pixel_range: as for `convert_vqmodel`.

    Raises:
        CogViewError: there is no image tokenizer of a known layout, or it is damaged.
        UsageError: `pixel_range` is needed, or does not apply.
    """
    if pixel_range is not None and not is_vqmodel(tensors):
        raise UsageError("--pixel-range does not apply to this source: leave it out")
    try:
        if is_vqmodel(tensors):
            config = read_foreign_config(source.parent)
            if config.get("_class_name") != VQMODEL:
                raise CogViewError(f"{TITLE}, without its config.json: give the folder of both")
            return convert_vqmodel(tensors, config, pixel_range)
        tokenizer = convert_image_tokenizer(tensors)
    except UsageError:
        raise
    except CogViewError as error:
        raise CogViewError(f"{source}: {error}") from error
    if tokenizer is None:
        raise _unknown(source, tensors.keys())
    return tokenizer


def prefix_in(source: Path, names: Collection[str]) -> str:
    """Return the prefix of an image tokenizer's names among those of an index.

    Raises:
        CogViewError: there is no image tokenizer of a known layout.
    """
    found = find_layout(names)
    if found is None:
        raise _unknown(source, names)
    return found[1]


def _unknown(source: Path, names: Collection[str]) -> CogViewError:
    """Return the error for a checkpoint that cannot be converted."""
    project = project_of(names) or kind_of_folder(source.parent)
    what = f"{project}, which cannot be converted yet" if project else "a checkpoint of an unknown layout"
    return CogViewError(
        f"{source}: {what} ({len(names)} tensors: {', '.join(list(names)[:3])}, ...); 'cogview convert --help' lists "
        "those that are known"
    )
