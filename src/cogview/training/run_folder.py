"""Folder of a run: its description, lock and resume checks."""

import dataclasses
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, read_bounded, try_lock
from cogview.plain_json import parse_json
from cogview.training.config import OPERATIONAL_FIELDS, TrainingConfig
from cogview.training.progress import say

FORMAT = "cogview-run"
VERSION = 1
_RESUME_FIELDS = (
    "training",
    "device",
    "device_name",
    "num_processes",
    "num_threads",
    "versions",
    "git_commit",
    "command",
)
_CONTENTS = ("config.json", "metrics.jsonl", "tensorboard", "samples", "checkpoints", "loss.png", "model")


def describe_run(
    config: TrainingConfig,
    recipe: Mapping[str, Any],
    device: torch.device,
    precision: str,
    num_processes: int = 1,
) -> dict[str, Any]:
    """Return all that is needed to repeat a run: config, seed, versions, commit, device and command."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "training": dataclasses.asdict(config),
        "recipe": recipe,
        "seed": config.seed,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "num_processes": num_processes,
        "num_threads": torch.get_num_threads(),
        "precision": precision,
        "versions": versions(),
        "git_commit": git_commit(),
        "command": command_line(),
    }
    # A round trip through JSON, so that it equals what is read from the file.
    plain: dict[str, Any] = json.loads(json.dumps(description, default=_plain))
    return plain


@contextmanager
def claimed_run_folder(run_folder: Path, description: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """Claim a folder for a run, or check that it holds the same one, and lock it.

    Args:
        run_folder: gets the description as `config.json`.
        description: from `describe_run`; a resume appends its variable fields to the list `resumes`.
        resume: whether the folder must, or must not, hold a run already.

    Raises:
        UsageError: there is a run without `resume`, or none with it, or one of another config (only `num_steps` may
            grow), or another process is training in it.
    """
    path = run_folder / "config.json"
    if run_folder.exists() and not run_folder.is_dir():
        raise UsageError(f"{run_folder} is a file; choose another name for the run folder.")
    if resume:
        if not path.exists():
            raise UsageError(f"There is no run to resume in {run_folder}: it has no config.json.")
        started = _read_config(path)
        _check_same_run(run_folder, started, description)
        # The original description stays, except for the length; each resume is appended.
        resumed = {name: description[name] for name in _RESUME_FIELDS}
        training = {**started["training"], "num_steps": description["training"]["num_steps"]}
        description = {
            **started,
            "training": training,
            "resumes": [*started.get("resumes", []), resumed],
        }
    else:
        present = [name for name in _CONTENTS if (run_folder / name).exists()]
        if present:
            raise UsageError(
                f"{run_folder} already holds a run ({', '.join(present)}); resume it or choose another folder."
            )
    run_folder.mkdir(parents=True, exist_ok=True)
    with (run_folder / ".lock").open("w") as lock:
        if not try_lock(lock.fileno()):
            raise UsageError(
                f"Another process is training in {run_folder}; let it end or choose another folder."
            )
        _remove_leftovers(run_folder)
        atomic_write_json(path, description)
        yield


def carry_over(old: Path, new: Path) -> None:
    """Keep what only the old of two folders holds, by linking it into the new one that replaces it.

    People and other commands put files there. They are linked if the disk can, else copied.

    Args:
        old: a folder, or nothing.
        new: a folder on the same disk.
    """
    for entry in old.iterdir() if old.is_dir() else ():
        target = new / entry.name
        if not os.path.lexists(target):
            if entry.is_dir() and not entry.is_symlink():
                shutil.copytree(entry, target, symlinks=True, copy_function=_link)
            else:
                _link(entry, target)
        elif not (entry.is_symlink() or target.is_symlink()) and target.is_dir():
            carry_over(entry, target)


def _link(source: str | Path, target: str | Path) -> None:
    """Hard-link a file or a symbolic link, or copy it where the disk has no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)


def _remove_leftovers(run_folder: Path) -> None:
    """Remove files left half-written by a kill; an unfinished `model` is handled by its next writer."""
    for name in _CONTENTS:
        written = re.compile(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}")  # as `atomic_file` calls them
        for leftover in run_folder.glob(f".{name}.*"):
            if written.fullmatch(leftover.name) and leftover.is_file():
                leftover.unlink()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(read_bounded(path))
    except (OSError, ValueError) as error:
        raise CogViewError(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("version") != VERSION:
        raise CogViewError(f"{path} is not the config of a run of this version of cogview.")
    return config


def _check_same_run(run_folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differences = [
        f"{name} was {was}, now {now}"
        for part in ("training", "recipe")
        for name, was, now in _differences(old.get(part), new[part])
        if not (part == "training" and name in OPERATIONAL_FIELDS)
        if not (part == "training" and name == "num_steps" and was.isdigit() and int(was) < int(now))
    ]
    if differences:
        raise UsageError(
            f"{run_folder} was started with another config: {'; '.join(differences)}. Resume it with the old values "
            "(where one was absent, with the version that it was started with), or choose another folder."
        )
    old = {"num_processes": 1, **old}  # runs of earlier versions do not say
    for part in ("versions", "device", "num_processes", "num_threads", "precision"):
        for name, was, now in _differences(old.get(part), new[part], part.replace("_", " ")):
            say(f"This run was started with {name} {was}, now it is {now}: its last digits may differ.")


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, str, str]]:
    """Return (dotted name, old value, new value) of all differences."""
    if isinstance(old, dict) and isinstance(new, dict):
        prefix = f"{name}." if name else ""
        return [
            difference
            for key in sorted(old.keys() | new.keys())
            for difference in _differences(old.get(key, "absent"), new.get(key, "absent"), f"{prefix}{key}")
        ]
    return [] if old == new else [(name, str(old), str(new))]


def _plain(value: Any) -> Any:
    """Convert values for JSON: a config to a mapping, anything else to text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def versions() -> dict[str, str]:
    """Return the versions of Python, torch and this package."""
    try:
        own = version("cogview")
    except PackageNotFoundError:  # run from its sources
        own = "unknown"
    return {"python": platform.python_version(), "torch": str(torch.__version__), "cogview": own}


def command_line() -> str:
    """Return this process's command, quoted for a shell."""
    name = Path(sys.argv[0]).name
    program = ["python", "-m", "cogview"] if name == "__main__.py" else [name]
    return shlex.join([*program, *sys.argv[1:]])


@cache
def git_commit() -> str | None:
    """Return the commit of the running code, with "-dirty" if modified; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        # First whether git tracks this file: an installed copy may lie in an unrelated repository.
        for arguments in (["ls-files", "--error-unmatch", __file__], _DESCRIBE):
            result = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


_DESCRIBE = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
