"""Folders of adapters: what a model can do beside its own task, in files of a few megabytes.

A folder `adapters/NAME` inside a model's, or one that stands alone, holds `config.json`, `model.safetensors` and a card
of its own, `README.md`, with the licence of what it learnt from. An adapter only fits the weights that it was trained
beside, so their fingerprint is part of its config, and others are refused. A whole finetuned transformer may take the
place of an adapter: its folder then names the tokenizers instead, and a model's own folder serves as one too.
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
    DRAWING_TASKS,
    read_adapter_config,
)
from cogview.models.pretrained import Adapters, PretrainedModel, TaskModel
from cogview.models.weights import misfit, stored_transformer, write_weights
from cogview.plain_json import section_from_json
from cogview.sequence.template import TextToImageTemplate
from cogview.tensors import MisfitError, UnreadableError, compare_shapes, read_tensors, stored_shapes
from cogview.text.known_words import WORDS_FILE, KnownWords
from cogview.transformer.adapter import AdaptedTransformer, adapter_shapes
from cogview.transformer.config import AdapterConfig, TransformerConfig

ADAPTER_FILES = ("config.json", "model.safetensors", "README.md", WORDS_FILE)


def save_task_model(
    task_model: TaskModel,
    folder: Path,
    base: PretrainedModel,
    dtype: torch.dtype = torch.float16,
    *,
    fingerprint: str | None = None,
    read: Callable[[str], Iterable[Tensor]] | None = None,
) -> None:
    """Write an adapter, or a whole transformer in place of one, as a folder; whole or not at all.

    Args:
        task_model: what to write.
        folder: made, or replaced if it holds one.
        base: the model that it is for.
        dtype: of the weights on disk.
        fingerprint: of the base's weights, where it is known to be another than `base.fingerprint`.
        read: gives each of the transformer's tensors, as for `save_pretrained`.

    Raises:
        CogViewError: the folder holds something else, which replacing it would delete.
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
        atomic_write_text(unfinished / "README.md", task_model.card or _bare_card(task_model))
        if task_model.words:
            task_model.words.save(unfinished)


def load_task_model(folder: Path, base: PretrainedModel) -> TaskModel:
    """Read an adapter of a model, or a whole transformer for the same tokenizers.

    Args:
        folder: as `save_task_model` writes it, or that of another model.
        base: the model that it is for; its weights are shared with an adapter, and frozen.

    Raises:
        CogViewError: the folder is missing, incomplete, of another kind or version, or does not belong to this model.
    """
    config = read_adapter_config(folder)
    source, weights_path = folder / "config.json", folder / "model.safetensors"
    place, dtype = base.device, base.dtype
    transformer: Any
    if "adapter" in config:
        if config.get("base") != base.fingerprint:
            raise CogViewError(
                f"The adapter {folder} was trained beside other weights ({config.get('base')}) than those of this "
                f"model ({base.fingerprint}): use it with the model that it was made for."
            )
        adapter = _checked_adapter(folder, config, base)
        try:
            transformer = AdaptedTransformer(base.transformer, adapter).eval()
        except UsageError as error:
            raise misfit(weights_path, error) from error
        weights = read_tensors(weights_path)
        transformer.load_state_dict(
            {name: tensor.to(place, dtype) for name, tensor in weights.items()}, strict=False
        )
    else:
        for what, wanted in (
            ("text_tokenizer", base.text_fingerprint),
            ("image_tokenizer", base.image_fingerprint),
        ):
            if config.get(what) not in (wanted, None):
                raise CogViewError(
                    f"The model {folder} learnt with another {what.replace('_', ' ')} ({config.get(what)}) than this "
                    f"model's ({wanted}): use it with a model of its own tokenizers."
                )
        shape = section_from_json(TransformerConfig, config, "transformer", source)
        if shape.vocabulary_size != base.config.vocabulary_size:
            raise CogViewError(
                f"The model {folder} has {shape.vocabulary_size} rows of the embedding, and this one "
                f"{base.config.vocabulary_size}: use it with a model of its own tokenizers."
            )
        transformer = stored_transformer(weights_path, shape, place, dtype).module
    found = TaskModel(
        task=config["task"],
        transformer=transformer,
        template=config["template"],
        licence=config["licence"],
        card=read_card(folder / "README.md"),
        words=KnownWords.in_folder(folder),
    )
    if found.task in DRAWING_TASKS:
        found.template_of(
            TextToImageTemplate, base.template.vocabulary
        )  # refused here, not when it is drawn with
    return found


def _checked_adapter(folder: Path, config: dict[str, Any], base: PretrainedModel) -> AdapterConfig:
    """Return what an adapter's config says that it adds, after comparing it with the header of its file.

    Raises:
        CogViewError: it isn't valid, or the file holds something else.
    """
    adapter = section_from_json(AdapterConfig, config, "adapter", folder / "config.json")
    weights_path = folder / "model.safetensors"
    try:
        compare_shapes(stored_shapes(weights_path), adapter_shapes(base.described, adapter))
    except MisfitError as error:
        raise misfit(weights_path, error) from error
    return adapter


def _refuse_unlike_adapter(folder: Path) -> None:
    refuse_unlike(folder, read_adapter_config, ADAPTER_FILES, "an adapter's folder")


def find_adapters(folder: Path, base: PretrainedModel) -> Adapters:
    """Return all adapters of a model's folder `adapters`, of which no weights are read yet; none without a folder.

    Of a folder that holds none, warn.

    Raises:
        CogViewError: one of them is incomplete, of another kind or version, or not what its config says.
    """
    adapters = Adapters()
    if folder.is_dir():
        base = dataclasses.replace(base, adapters=Adapters())  # else both would hold each other in memory
        for path in sorted(folder.iterdir()):
            if is_part(path, "adapter"):
                config = read_adapter_config(path)
                if "adapter" in config:
                    with suppress(UnreadableError):  # that is told of when the adapter is asked for
                        _checked_adapter(path, config, base)
                adapters.add_unread(path.name, config["task"], partial(load_task_model, path, base))
    return adapters


def find_adapter_folder(path: str | Path) -> Path:
    """Return the folder of an adapter that is named by its path, or by that of the run which trained it.

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
    """Return the name of an adapter, which becomes that of a folder.

    Raises:
        UsageError: it cannot.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"an adapter's name is made of letters, digits, - and _, got {name!r}: give another")
    return name


def refuse_lost_adapters(folder: Path, kept: Iterable[str]) -> None:
    """Refuse to replace a model's folder that holds adapters which the new one does not have.

    Raises:
        CogViewError: naming them.
    """
    adapters = folder / ADAPTERS_FOLDER
    held = {path.name for path in adapters.iterdir()} if adapters.is_dir() else set()
    lost = sorted(held - set(kept))
    if lost:
        raise CogViewError(
            f"{folder} holds adapters that this model does not have ({', '.join(lost)}), so it is not replaced: choose "
            "another path."
        )


def _bare_card(task_model: TaskModel) -> str:
    """Return a card that says no more than the files do, with the header that the hub reads."""
    transformer = task_model.transformer
    num = sum(tensor.numel() for tensor in transformer.state_dict().values())
    kind = "adapter" if isinstance(transformer, AdaptedTransformer) else "transformer"
    return f"""---
library_name: cogview
license: {task_model.licence or "unknown"}
---

# A CogView {kind} for {task_model.task}

{num:,} parameters. Licence: {task_model.licence or "unknown"}.

```python
import cogview

pipe = cogview.load("PATH OF THE MODEL")
pipe.add_adapter("PATH OF THIS FOLDER", "name")
```
"""
