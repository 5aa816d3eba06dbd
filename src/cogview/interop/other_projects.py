"""Detection of unsupported checkpoints of other projects, for clear error messages."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cogview.errors import CogViewError, UsageError
from cogview.files import read_json
from cogview.models.config import MODEL_FORMAT

_LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a latent diffusion model", (r"(model\.)?diffusion_model\..+",)),
    ("a transformer of minDALL-E", (r"(.+\.)?tok_emb_img\.weight", r"(.+\.)?tok_emb_txt\.weight")),
    ("a transformer of DALL-E mini", (r"layers\.0\.glu\.(ln0|fc0)\.weight",)),
    ("a transformer of DALLE-pytorch", (r"text_emb\..+", r"image_emb\..+", r"transformer\.layers\..+")),
    ("a transformer of CogView2", (r"transformer\.word_embeddings\.weight", r"transformer\.layers\..+")),
    ("an autoencoder without codes", (r"encoder\.down(_blocks)?\..+", r"quant_conv\.weight")),
    ("a language model of Llama's layout", (r"(model\.)?layers\.0\.self_attn\.q_proj\.weight",)),
)
"""Project, and patterns that must each match a tensor's name; the first match counts."""


def project_of(names: Collection[str]) -> str | None:
    """Return the project of a checkpoint by the names of its tensors; None if unknown."""
    for project, patterns in _LAYOUTS:
        if all(any(re.fullmatch(pattern, name) for name in names) for pattern in patterns):
            return project
    return None


def refuse_other_formats(source: Path) -> None:
    """Refuse files of other libraries and folders of ours, before the source is read as a checkpoint.

    Raises:
        CogViewError: it is a file of Flax, or a whole pipeline of diffusers.
        UsageError: it is a folder of ours.
    """
    if source.suffix == ".msgpack":
        raise CogViewError(
            f"{source} is a file of Flax, as DALL-E mini's are: give a checkpoint of PyTorch, if there is one"
        )
    if (own := read_foreign_config(source).get("format")) is not None:
        more = "; for another form of it, give --to int8 or --to released" if own == MODEL_FORMAT else ""
        raise UsageError(f"{source} is this program's own, and needs no conversion{more}")
    if (source / "model_index.json").is_file():
        parts = sorted(path.parent for path in source.glob("*/config.json"))
        tokenizers = [
            path.name for path in parts if read_foreign_config(path).get("_class_name") == "VQModel"
        ]
        hint = f"give its part {source / tokenizers[0]}" if tokenizers else "it has no VQModel"
        raise CogViewError(f"{source} is a whole pipeline of diffusers: {hint}")


def read_foreign_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a folder; empty if there is none."""
    path = folder / "config.json"
    config = read_json(path, "checkpoint") if path.is_file() else {}
    return config if isinstance(config, dict) else {}


def kind_of_folder(folder: Path) -> str | None:
    """Return what a folder of another package is by its config.json; None if it does not say."""
    config = read_foreign_config(folder)
    kind = config.get("_class_name") or config.get("model_type")
    if not isinstance(kind, str):
        return None
    return f"a {kind[:80]} of {'diffusers' if '_class_name' in config else 'the package transformers'}"
