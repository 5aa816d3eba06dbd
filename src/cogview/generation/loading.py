"""From a path, a hub id or nothing to what draws."""

from dataclasses import replace
from pathlib import Path

import torch

from cogview.decoding.config import CacheName, Resources, bytes_of
from cogview.generation.pipeline import Pipeline
from cogview.generation.placement import resolve_device, resolve_dtype
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained


def load(
    path_or_hub_id: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    *,
    max_batch: int = 16,
    memory: str | int | None = None,
    cache: CacheName = "auto",
) -> Pipeline:
    """Load a model.

    Args:
        path_or_hub_id: a model folder, the folder of a training run, `OWNER/NAME` on the Hugging Face hub (the only
            case in which the network is used), or None for the bundled model.
        device: "cpu", "cuda", "cuda:1", ...; a GPU if there is one by default.
        dtype: of the transformer's weights: float32, bfloat16, float16, or int8 on a CPU, as torch's dtype or as a
            name. By default float32 on CPU, or int8 if they are stored so, and bfloat16 on a GPU that computes it. A
            model that is to be saved again should be loaded as float32, which holds every stored dtype exactly.
        max_batch: pictures that are worked on at once, at most.
        memory: of the whole process, such as "6GiB": fewer pictures are worked on at once where more would need more,
            and what does not fit even alone is refused. As much as there is by default.
        cache: what keys and values are held in; "float16" halves them.

    Raises:
        UsageError: an impossible number; the device or the dtype is unknown or not to be had here.
        CogViewError: there is no such model, it is incomplete, of another version, or its parts do not belong
            together.
    """
    place = resolve_device(device)
    resources = Resources(
        max_batch=max_batch, memory_bytes=None if memory is None else bytes_of(memory), cache=cache
    )
    model = load_pretrained(find_model_folder(path_or_hub_id), place, resolve_dtype(dtype, place))
    return Pipeline(replace(model, resources=resources))
