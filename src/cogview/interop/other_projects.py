"""Detection of unsupported checkpoints of other projects, for clear error messages."""

import re
from collections.abc import Collection
from pathlib import Path

from cogview.errors import CogViewError, UsageError
from cogview.files import read_json

_LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a latent diffusion model", (r"(model\.)?diffusion_model\..+",)),
    ("a transformer of minDALL-E", (r"(.+\.)?tok_emb_img\.weight", r"(.+\.)?tok_emb_txt\.weight")),
    ("a transformer of DALL-E mini", (r"layers\.0\.glu\.(ln0|fc0)\.weight",)),
    ("a transformer of DALLE-pytorch", (r"text_emb\..+", r"image_emb\..+", r"transformer\.layers\..+")),
    ("a transformer of CogView2", (r"transformer\.word_embeddings\.weight", r"transformer\.layers\..+")),
    ("Janus", (r"gen_vision_model\..+",)),
    ("Janus, in the layout of the package transformers", (r"(model\.)?vqmodel\..+",)),
    ("a VQ tokenizer of LlamaGen", (r"encoder\.conv_blocks\..+",)),
    ("Sber's VQGAN of ruDALL-E, with wavelets", (r"decoder\.idwt\..+",)),
    ("a VQModel of diffusers", (r"encoder\.down_blocks\..+", r"quantize\.embedding\.weight")),
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
    """Refuse known unsupported formats, before the source is read as a checkpoint.

    Raises:
        CogViewError: the format is unsupported.
        UsageError: it is a model folder of ours.
    """
    if source.suffix == ".msgpack":
        raise CogViewError(
            f"{source} is a file of Flax, as DALL-E mini's are: give a checkpoint of PyTorch, if there is one"
        )
    config_path = source / "config.json"
    if not config_path.is_file():
        return
    config = read_json(config_path, "checkpoint")
    config = config if isinstance(config, dict) else {}
    kind = config.get("_class_name") or config.get("model_type")
    if isinstance(kind, str) and "format" not in config:
        package = "diffusers" if "_class_name" in config else "the package transformers"
        raise CogViewError(f"{source} is a {kind[:80]} of {package}, which cannot be converted yet")
    raise UsageError(f"{source} is no checkpoint of others'; for the release's layout, give --to released")
