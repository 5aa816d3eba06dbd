"""Adapter folders: weights of a few megabytes for a further task of a model.

A folder, `adapters/NAME` in a model's or on its own, holds `config.json`, `model.safetensors` and a card, `README.md`,
with the licence of its training data. An adapter fits only the weights that it was trained with, so their fingerprint
is in its config, and others are refused. A whole finetuned transformer can take an adapter's place: its folder names
the tokenizers instead, and a model folder serves as one too.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, atomic_write_text, read_card
from cogview.folders import atomic_folder, is_part, refuse_unlike
from cogview.models.config import (
    ADAPTER_FORMAT,
    ADAPTER_VERSION,
    ADAPTERS_FOLDER,
    TaskName,
    read_adapter_config,
)
from cogview.models.pretrained import Adapters, PretrainedModel, TaskModel
from cogview.models.weights import misfit, stored_transformer
from cogview.plain_json import section_from_json
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import TextToImageTemplate
from cogview.tensors import (
    MisfitError,
    UnreadableError,
    compare_shapes,
    read_tensors,
    stored_shapes,
    write_weights,
)
from cogview.text.known_words import WORDS_FILE, KnownWords
from cogview.transformer.adapter import AdaptedTransformer, adapter_shapes
from cogview.transformer.config import AdapterConfig, TransformerConfig

ADAPTER_FILES = ("config.json", "model.safetensors", "README.md", WORDS_FILE)

_TEMPLATES: dict[TaskName, type] = {
    "text-to-image": TextToImageTemplate,
    "style": TextToImageTemplate,
    "captioning": CaptionTemplate,
    "super-resolution": SuperResolutionTemplate,
}


def save_task_model(
    task_model: TaskModel,
    folder: Path,
    base: PretrainedModel,
    dtype: torch.dtype = torch.float16,
    *,
    fingerprint: str | None = None,
    read: Callable[[str], Iterable[Tensor]] | None = None,
) -> None:
    """Write an adapter, or a whole transformer in its place, as a folder, whole or not at all.

    Args:
        task_model: to write.
        folder: created, or replaced if it holds an adapter.
        base: model of the adapter.
        dtype: of the weights on disk.
        fingerprint: of the base's weights, if it differs from `base.fingerprint`.
        read: returns each of the transformer's tensors, as for `save_pretrained`.

    Raises:
        CogViewError: the folder holds something other than an adapter.
    """
    transformer = task_model.transformer
    config: dict[str, Any] = {
        "format": ADAPTER_FORMAT,
        "version": ADAPTER_VERSION,
        "task": task_model.task,
        "template": dict(task_model.template),
        "licence": task_model.licence,
    }
    if isinstance(transformer, AdaptedTransformer):
        config["adapter"] = dataclasses.asdict(transformer.adapter)
        config["base"] = fingerprint or base.fingerprint
    else:
        config["transformer"] = dataclasses.asdict(transformer.config)
        config["text_tokenizer"] = base.text_fingerprint
        config["image_tokenizer"] = base.image_fingerprint
    with atomic_folder(folder, _refuse_unlike_adapter) as unfinished:
        atomic_write_json(unfinished / "config.json", config)
        write_weights(unfinished / "model.safetensors", transformer.state_dict(), dtype, read)
        atomic_write_text(unfinished / "README.md", task_model.card or bare_adapter_card(task_model))
        if task_model.words:
            task_model.words.save(unfinished)


def load_task_model(folder: Path, base: PretrainedModel, *, any_base: bool = False) -> TaskModel:
    """Read an adapter of a model, or a whole transformer for the same tokenizers.

    Args:
        folder: from `save_task_model`, or a model folder.
        base: model of the adapter; its weights are shared, and frozen.
        any_base: whether the adapter may be of another model of the same shape, to train it further.

    Raises:
        CogViewError: the folder is missing, incomplete, of another kind or version, or not for this model.
    """
    config = read_adapter_config(folder)
    source, weights_path = folder / "config.json", folder / "model.safetensors"
    device, dtype = base.device, base.dtype
    transformer: Any
    if "adapter" in config:
        if not any_base and config.get("base") != base.fingerprint:
            raise CogViewError(
                f"The adapter {folder} was trained with other weights ({config.get('base')}) than those of this "
                f"model ({base.fingerprint}): use it with the model that it was made for, or train it for this one "
                "(--start-from)."
            )
        adapter = _checked_adapter(folder, config, base)
        try:
            transformer = AdaptedTransformer(base.transformer, adapter).eval()
        except UsageError as error:
            raise misfit(weights_path, error) from error
        weights = read_tensors(weights_path)
        transformer.load_state_dict(
            {name: tensor.to(device, dtype) for name, tensor in weights.items()}, strict=False
        )
    else:
        for what, expected in (
            ("text_tokenizer", base.text_fingerprint),
            ("image_tokenizer", base.image_fingerprint),
        ):
            if config.get(what) not in (expected, None):
                raise CogViewError(
                    f"The model {folder} learnt with another {what.replace('_', ' ')} ({config.get(what)}) than this "
                    f"model's ({expected}): use it with a model of its own tokenizers."
                )
        shape = section_from_json(TransformerConfig, config, "transformer", source)
        if shape.vocabulary_size != base.config.vocabulary_size:
            raise CogViewError(
                f"The model {folder} has {shape.vocabulary_size} rows of the embedding, and this one "
                f"{base.config.vocabulary_size}: use it with a model of its own tokenizers."
            )
        transformer = stored_transformer(weights_path, shape, device, dtype).module
    task_model = TaskModel(
        task=config["task"],
        transformer=transformer,
        template=config["template"],
        licence=config["licence"],
        card=read_card(folder / "README.md"),
        words=KnownWords.in_folder(folder),
    )
    try:  # now, not on first use
        task_model.template_of(_TEMPLATES[task_model.task], base.template.vocabulary)
    except CogViewError as error:
        if "adapter" not in config:
            raise CogViewError(
                f"The model {folder} reads other sequences than this one: use it alone, or an adapter of this one."
            ) from error
        raise CogViewError(f"{source}: {error}") from error
    return task_model


def _checked_adapter(folder: Path, config: dict[str, Any], base: PretrainedModel) -> AdapterConfig:
    """Read an adapter's config, and compare it with the shapes in its file.

    Raises:
        CogViewError: the config is invalid, or the shapes differ.
    """
    adapter = section_from_json(AdapterConfig, config, "adapter", folder / "config.json")
    weights_path = folder / "model.safetensors"
    try:
        compare_shapes(stored_shapes(weights_path), adapter_shapes(base.meta_transformer, adapter))
    except MisfitError as error:
        raise misfit(weights_path, error) from error
    return adapter


def _refuse_unlike_adapter(folder: Path) -> None:
    refuse_unlike(folder, read_adapter_config, ADAPTER_FILES, "an adapter's folder")


def find_adapters(folder: Path, base: PretrainedModel) -> Adapters:
    """Return the adapters in a folder, to be read on first use; warn of other subfolders.

    Raises:
        CogViewError: an adapter is incomplete, of another kind or version, or not what its config says.
    """
    adapters = Adapters()
    if folder.is_dir():
        base = dataclasses.replace(base, adapters=Adapters())  # avoids a reference cycle
        for path in sorted(folder.iterdir()):
            if is_part(path, "adapter"):
                config = read_adapter_config(path)
                if "adapter" in config:
                    with suppress(UnreadableError):  # raised on first use instead
                        _checked_adapter(path, config, base)
                adapters.add_unread(path.name, config["task"], partial(load_task_model, path, base))
    return adapters


def find_adapter_folder(path: str | Path) -> Path:
    """Return the adapter folder of a path to it or to its training run.

    Raises:
        CogViewError: the run has not exported its adapter yet.
    """
    folder = Path(path).expanduser()
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    if (folder / "checkpoints").is_dir() or (folder / "metrics.jsonl").is_file():
        raise CogViewError(
            f"The run {folder} has not exported its adapter yet: let its training finish, or resume it until it does."
        )
    return folder


def check_name(name: str) -> str:
    """Validate the name of an adapter, which becomes a folder's name.

    Raises:
        UsageError: the name is invalid.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(
            f"an adapter's name is made of letters, digits, -, . and _, got {name!r}: give another"
        )
    return name


def refuse_lost_adapters(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace a model folder that has adapters which the new one lacks.

    Raises:
        CogViewError: adapters would be lost.
    """
    adapters = folder / ADAPTERS_FOLDER
    existing = {path.name for path in adapters.iterdir()} if adapters.is_dir() else set()
    lost = sorted(existing - set(names))
    if lost:
        raise CogViewError(
            f"{folder} has adapters that this model lacks ({', '.join(lost)}), so it is not replaced: choose "
            "another path."
        )


def bare_adapter_card(task_model: TaskModel, origin: str = "") -> str:
    """Return a minimal card, with the header that the hub reads.

    Args:
        task_model: to describe.
        origin: sentence that tells where the weights are from.
    """
    transformer = task_model.transformer
    num = sum(tensor.numel() for tensor in transformer.state_dict().values())
    kind = "adapter" if isinstance(transformer, AdaptedTransformer) else "transformer"
    return f"""---
library_name: cogview
license: {task_model.licence or "unknown"}
---

# A CogView {kind} for {task_model.task}

{num:,} parameters. Licence: {task_model.licence or "unknown"}.{f" {origin}" if origin else ""}

```python
import cogview

pipe = cogview.load("PATH OF THE MODEL")
pipe.add_adapter("PATH OF THIS FOLDER", "name")
```
"""
