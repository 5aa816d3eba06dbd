"""Environment of a result: versions, system and devices."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from cogview.training.precision import computes_bfloat16

REQUIRED_PACKAGES = (
    *("torch", "numpy", "pillow", "sentencepiece", "safetensors"),
    *("huggingface_hub", "filelock", "jaxtyping", "jinja2", "tyro", "tqdm"),
)


def version_of(package: str) -> str | None:
    """Return an installed package's version, or None."""
    try:
        return version(package.partition("[")[0])
    except PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Return the versions of all dependencies, the system and the devices."""
    return {
        "cogview": version_of("cogview"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version_of(name) for name in REQUIRED_PACKAGES},
        "devices": {
            "cpu": _cpu(),
            **{
                f"cuda:{index}": {
                    "name": torch.cuda.get_device_name(index),
                    "memory_gib": round(torch.cuda.get_device_properties(index).total_memory / 2**30, 1),
                    "bfloat16": torch.cuda.is_bf16_supported(),
                }
                for index in range(torch.cuda.device_count())
            },
        },
    }


def _cpu() -> dict[str, Any]:
    """Return the facts about the CPU that matter for speed."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": computes_bfloat16(torch.device("cpu")),
    }
