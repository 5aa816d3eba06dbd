"""Location of model folders, and configs of models and adapters. Does not import PyTorch."""

import re
from pathlib import Path
from typing import Any, Literal, get_args

from cogview.errors import CogViewError
from cogview.files import CONVERT_FIRST, read_json
from cogview.text.config import TextCase

MODEL_FORMAT = "cogview"
VERSION = 1
INT8_VERSION = 2
"""Of folders with int8 weights, which older versions of this package cannot read."""
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"

ADAPTER_FORMAT = "cogview-adapter"
ADAPTER_VERSION = 1
ADAPTERS_FOLDER = "adapters"

TaskName = Literal["text-to-image", "style", "captioning", "super-resolution"]
DRAWING_TASKS: tuple[TaskName, ...] = ("text-to-image", "style")
"""Tasks with a text-to-image template."""


def find_model_folder(path_or_hub_id: str | Path | None) -> Path:
    """Return the local folder of a model; download it if it is named by a hub id.

    Args:
        path_or_hub_id: a model folder, the folder of a training run (for its `model/`), `OWNER/NAME` on the Hugging
            Face hub, or None for the bundled model. A name that exists here, or whose parent folder does, is a path.

    Raises:
        CogViewError: there is no such model, or the run has not exported it yet.
    """
    if path_or_hub_id is None:
        if not (BUNDLED_FOLDER / "config.json").is_file():
            raise CogViewError("This installation has no bundled model: give the path of a model folder.")
        return BUNDLED_FOLDER
    path = Path(path_or_hub_id).expanduser()
    if not path.exists() and _is_hub_id(path_or_hub_id):
        return _fetch(str(path_or_hub_id))
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if (path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file():
        raise CogViewError(
            f"The run {path} has not exported a model yet: let its training finish, or resume it until it does."
        )
    return path


def _is_hub_id(name: str | Path) -> bool:
    """Return whether a name can only be a repository on the hub."""
    return (
        isinstance(name, str)
        and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None
        and not Path(name).parent.exists()  # else it is a mistyped path, which the hub need not know
    )


def _fetch(hub_id: str) -> Path:
    """Download the files of a model from the hub into its local cache."""
    from huggingface_hub import snapshot_download

    from cogview.models.folder import MODEL_FILES  # imports PyTorch

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(MODEL_FILES)))
    except Exception as error:  # hub and HTTP library have no common base class of errors
        raise CogViewError(
            f"There is no folder {hub_id} here, and {why_not_downloaded(error)}: check the path or the id."
        ) from error


def why_not_downloaded(error: Exception) -> str:
    """Return the reason why the hub sent no model, in a few words."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    # By name, since the hub's library has changed its own HTTP library, from httpx to httpx2.
    has_no_network = any(kind.__name__ == "TransportError" for kind in type(error).__mro__)

    if isinstance(error, GatedRepoError):
        return "the Hugging Face hub wants you to log in and to accept the model's terms"
    if isinstance(error, RepositoryNotFoundError):
        return "the Hugging Face hub has no such model, or none for you"
    if has_no_network or isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "the Hugging Face hub cannot be reached"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"the Hugging Face hub did not send it ({reason})"


def read_config(folder: Path) -> dict[str, Any]:
    """Read and validate the config of a model folder.

    Raises:
        CogViewError: it is no model folder of a known version.
    """
    if folder.is_file():
        raise CogViewError(f"{folder} is a file, not a model folder: {CONVERT_FIRST}.")
    if not folder.is_dir():
        raise CogViewError(
            f"There is no model folder {folder}: check the path. A model on the Hugging Face hub is named OWNER/NAME."
        )
    path = folder / "config.json"
    if not path.is_file():
        raise CogViewError(f"{folder} is not a model folder, it has no config.json: check the path.")
    config = read_json(path, "model")
    kind = config.get("format") if isinstance(config, dict) else None
    if kind == "cogview-image-tokenizer":
        raise CogViewError(
            f"{folder} is an image tokenizer, not a whole model: cogview.load_image_tokenizer reads it."
        )
    if kind == ADAPTER_FORMAT:
        raise CogViewError(
            f"{folder} is an adapter, not a whole model: give it as one, beside the model it is for."
        )
    if kind != MODEL_FORMAT:
        raise CogViewError(
            f"{folder} is not a model folder of this project, its config has format {kind!r}: {CONVERT_FIRST}."
        )
    if config.get("version") not in (VERSION, INT8_VERSION):
        raise CogViewError(
            f"The model folder {folder} has version {config.get('version')!r} and this cogview reads versions "
            f"{VERSION} and {INT8_VERSION}: install the cogview that wrote it, or export it again."
        )
    return config


def read_text_case(config: dict[str, Any], source: Path) -> TextCase:
    """Return how a model reads capitals, by its config; "as_written" in older configs.

    Raises:
        CogViewError: the value is unknown.
    """
    case: TextCase = config.get("text_case", "as_written")
    if case not in get_args(TextCase):
        raise CogViewError(
            f"{source} has a text_case of {case!r}, wanted {' or '.join(get_args(TextCase))}: export the model again."
        )
    return case


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read and validate the config of an adapter, or of a whole transformer in its place.

    Raises:
        CogViewError: it is neither, or of another version.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CogViewError(f"There is no adapter in {folder}, it has no config.json: check the path.")
    config = read_json(path, "adapter")
    kind = config.get("format") if isinstance(config, dict) else None
    if kind not in (ADAPTER_FORMAT, MODEL_FORMAT):
        raise CogViewError(f"{folder} is not an adapter of this project: its config has format {kind!r}.")
    if config.get("version") != ADAPTER_VERSION:
        raise CogViewError(
            f"{folder} has version {config.get('version')!r} and this cogview reads version {ADAPTER_VERSION}: install "
            "the cogview that wrote it, or export it again."
        )
    config = {"task": "text-to-image", "licence": "", **config}
    if config["task"] not in get_args(TaskName):
        raise CogViewError(f"{path} is for an unknown task {config['task']!r}: check the path.")
    if not isinstance(config.get("template"), dict) or not isinstance(config["licence"], str):
        raise CogViewError(
            f"{path} has no valid sections 'template' and 'licence': export the adapter again."
        )
    return config
