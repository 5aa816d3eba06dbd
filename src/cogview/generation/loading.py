"""Loading of a pipeline from a path, a hub id or the bundled model."""

from dataclasses import replace
from pathlib import Path

import torch

from cogview.decoding.config import CacheName, KernelsName, Resources, bytes_of
from cogview.generation.devices import resolve_device, resolve_dtype
from cogview.generation.pipeline import Pipeline
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
    kernels: KernelsName = "auto",
) -> Pipeline:
    """Load a model.

    Args:
        path_or_hub_id: a model folder, the folder of a training run, `OWNER/NAME` on the Hugging Face hub (the only
            case that uses the network), or None for the bundled model.
        device: "cpu", "cuda", "cuda:1", ...; a GPU if there is one by default.
        dtype: of the transformer's weights, as torch's dtype or as a name: float32, bfloat16, float16, or int8 on a
            CPU. Default: on CPU float32, or int8 if stored so; on a GPU bfloat16 if it computes that. To save a model
            again, load it as float32, which holds every stored dtype exactly.
        max_batch: maximum batch size, in pictures.
        memory: limit for the whole process, such as "6GiB": batches get smaller to keep it, and a picture that needs
            more by itself is refused. Unlimited by default.
        cache: dtype of keys and values; "float16" halves their memory.
        kernels: "native" ones are faster where few pictures are drawn at once on a CPU. They need Numba
            (`cogview[native]`), which compiles them for a minute the first time.

    Raises:
        UsageError: an impossible number, or a device or dtype that is unknown or not available here.
        CogViewError: the model is missing, incomplete, of another version, or its parts do not fit together.
    """
    place = resolve_device(device)
    resources = Resources(
        max_batch=max_batch,
        memory_bytes=None if memory is None else bytes_of(memory),
        cache=cache,
        kernels=kernels,
    )
    model = load_pretrained(find_model_folder(path_or_hub_id), place, resolve_dtype(dtype, place))
    return Pipeline(replace(model, resources=resources))
