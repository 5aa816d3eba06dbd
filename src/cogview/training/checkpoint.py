"""Checkpoints, whole or absent: tensors in safetensors, state and digests in JSON.

Several processes write shards; any number of processes can resume from either kind.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from cogview.errors import CogViewError
from cogview.files import regular_file, unused_path
from cogview.folders import atomic_folder, refuse_unlike
from cogview.plain_json import parse_json
from cogview.training.parallel import by_head, local, part_of, stacked
from cogview.training.processes import Processes
from cogview.training.progress import say
from cogview.training.shards import damage_of_shards, read_shards, shapes_of_shards, write_shards

FORMAT = "cogview-checkpoint"
VERSION = 1
SHARDED_VERSION = 2
_MODEL = "model/"
_FOLDER_NAME = re.compile(r"step-(\d{8,})")
_LEFTOVER = re.compile(r"\.step-\d{8,}(\.unfinished(-\w+-\w+)?|\.removed(-\d+)?)")


class _DamagedError(Exception):
    """A checkpoint differs from what was written, so no retry and no other version can read it."""


def save_checkpoint(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Any],
    keep: int,
    processes: Processes | None = None,
) -> Path:
    """Write a checkpoint, then delete the oldest.

    Files are synced before the folder gets its name, so a kill or power cut leaves no partial checkpoint. If writing
    fails, earlier checkpoints are untouched.

    Args:
        folder: the run's folder of checkpoints.
        step: number of completed steps.
        module: its parameters and persistent buffers are stored.
        optimizers: their per-parameter tensors are stored; hyperparameters come from the config.
        state: what else a resume needs, as JSON.
        keep: number of latest checkpoints to keep.
        processes: all that train; None for one. Each writes its shards to a shared disk; the state is the first one's.

    Returns:
        The checkpoint's folder.
    """
    path = folder / f"step-{step:08d}"
    if processes is not None and processes.mesh is not None:
        _save_together(path, step, module, optimizers, state, keep, processes)
        return path
    with atomic_folder(path, _refuse_unlike_checkpoint) as temporary:
        digests = {
            "model.safetensors": _write_tensors(temporary / "model.safetensors", _module_tensors(module)),
            "optimizer.safetensors": _write_tensors(
                temporary / "optimizer.safetensors", _optimizer_tensors(module, optimizers)
            ),
        }
        _write_state(temporary, {"version": VERSION, "step": step, "sha256": digests, **state})
    _sync_folder(folder)
    for old in list_checkpoints(folder)[:-keep]:
        _remove(old)
    return path


def _save_together(
    path: Path,
    step: int,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Any],
    keep: int,
    processes: Processes,
) -> None:
    """Write a checkpoint's shards in a hidden folder, which the first process renames at the end."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    failure: Exception | None = None
    if processes.is_first:
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        except OSError as error:
            failure = error
    processes.agree(failure)
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in _module_tensors(module).items()}
    tensors.update(_optimizer_tensors(module, optimizers))
    try:
        digests = write_shards(unfinished, tensors, processes)
    except OSError:
        if processes.is_first:  # free the space for the next checkpoint
            shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if processes.is_first:
        try:
            _write_state(unfinished, {"version": SHARDED_VERSION, "step": step, "sha256": digests, **state})
            if path.exists():
                _refuse_unlike_checkpoint(path)
                _remove(path)
            unfinished.replace(path)
            _sync_folder(path.parent)
            for old in list_checkpoints(path.parent)[:-keep]:
                _remove(old)
        except (OSError, CogViewError) as error:
            failure = error
    processes.agree(failure)


def _refuse_unlike_checkpoint(path: Path) -> None:
    """Refuse to replace anything but a checkpoint; a run that rolled back reaches the same step again.

    Raises:
        CogViewError: something else is in the way.
    """
    refuse_unlike(path, lambda _: None, ("state.json", "*.safetensors"), "a checkpoint")


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    content = {"format": FORMAT, **state}
    content["own_sha256"] = _digest_of_state(content)
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    _write_durably(folder / "state.json", text.encode())
    _sync_folder(folder)


def _digest_of_state(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the folders with names of checkpoints, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    steps = {path: _FOLDER_NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()}
    return sorted((path for path, match in steps.items() if match), key=lambda path: int(path.name[5:]))


def load_latest_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    processes: Processes | None = None,
) -> dict[str, Any] | None:
    """Load the latest whole checkpoint into the module and the optimizers.

    Damaged checkpoints are reported, skipped and renamed to `.broken`, so that they are neither counted nor
    overwritten. One that only cannot be read now stops the run: resuming from an older one would lose steps.

    Args:
        folder: the run's folder of checkpoints.
        module: of the stored module's shapes.
        optimizers: built for `module`.
        processes: all that train, in any number; None for one.

    Returns:
        The stored state with "step" in it; None if there is no checkpoint.

    Raises:
        CogViewError: no checkpoint is whole; or the latest whole one is of another model or version, or unreadable now.
    """
    processes = processes or Processes(device=torch.device("cpu"))
    if processes.is_first:
        remove_leftovers(folder)
    names = processes.gather([path.name for path in list_checkpoints(folder)])[0]
    if not names:
        return None
    for name in reversed(names):
        path = folder / name
        damage, failure, read = "", None, None
        try:
            read = _read(path, processes)
        except _DamagedError as error:
            damage = str(error)
        except CogViewError as error:
            failure = error
        processes.agree(failure)
        damage = next((each for each in processes.gather(damage) if each), "")
        if damage:
            if processes.is_first:
                say(f"Checkpoint {name} is damaged ({damage}); trying the one before it.")
                path.replace(unused_path(path.with_name(f"{name}.broken")))
            continue
        assert read is not None
        state, model_tensors, optimizer_tensors = read
        if state["version"] == SHARDED_VERSION:
            model_tensors, optimizer_tensors = _tensors_of_shards(path, module, processes)
        elif processes.mesh is not None:
            model_tensors, optimizer_tensors = (
                by_head(module, model_tensors),
                by_head(module, optimizer_tensors),
            )
        _load_module(module, model_tensors, path)
        _load_optimizers(module, optimizers, optimizer_tensors, path)
        return state
    raise CogViewError(
        f"None of the {len(names)} checkpoints in {folder} is whole: start again in another run folder."
    )


def _tensors_of_shards(
    path: Path, module: nn.Module, processes: Processes
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Read the tensors of the module and its optimizers, sharded like the module's parameters."""
    parameters = dict(module.named_parameters())
    tensors: dict[str, torch.Tensor] = {}
    for name, (shape, dtype) in shapes_of_shards(path).items():
        like = parameters.get(name.partition("/")[2])
        if like is not None and like.shape == shape:
            tensors[name] = torch.empty_like(like, dtype=dtype, requires_grad=False)
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
    read_shards(path, tensors, processes)
    if processes.mesh is None:
        tensors = stacked(module, tensors)
    of_model = {name: tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
    of_optimizers = {name: tensor for name, tensor in tensors.items() if name not in of_model}
    return {name.removeprefix(_MODEL): tensor for name, tensor in of_model.items()}, of_optimizers


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written or half-removed."""
    if folder.is_dir():
        for path in folder.glob(".step-*"):
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _read(
    path: Path, processes: Processes
) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Read a checkpoint, checking all of it first; of one in shards, only check it.

    Raises:
        _DamagedError: a file is missing or damaged.
        CogViewError: it is of another version, or cannot be read for an outside reason.
    """
    try:
        state = parse_json(regular_file(path / "state.json").read_bytes())
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise _DamagedError("state.json is not of a checkpoint")
        if state.get("version") not in (VERSION, SHARDED_VERSION):
            raise CogViewError(
                f"{path} has version {state.get('version')!r} and this cogview reads versions {VERSION} and "
                f"{SHARDED_VERSION}: resume with the cogview that wrote it, or move it away to go on from the one "
                "before it."
            )
        own = state.pop("own_sha256", None)  # earlier versions wrote none
        if own is not None and own != _digest_of_state(state):
            raise _DamagedError("state.json is not as it was written")
        if state["version"] == SHARDED_VERSION:
            damage = damage_of_shards(path, state["sha256"], processes)
            if damage:
                raise _DamagedError(damage)
            return state, {}, {}
        tensors = []
        for name in ("model.safetensors", "optimizer.safetensors"):
            data = regular_file(path / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != state["sha256"][name]:
                raise _DamagedError(f"{name} is not as it was written")
            tensors.append(safetensors.torch.load(data))
    except (FileNotFoundError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from error
    except OSError as error:
        raise CogViewError(
            f"{error.filename or path} cannot be read ({error.strerror or error}): fix that and resume, or move "
            f"{path} away to go on from the one before it."
        ) from error
    return state, tensors[0], tensors[1]


def _module_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the module's state, tied tensors once."""
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def _load_module(module: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    missing = sorted(_module_tensors(module).keys() ^ tensors.keys())
    if missing:
        raise CogViewError(f"{path} is of another model: only one of them has {missing[0]}.")
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        for name, own in _module_tensors(module).items():
            if own.shape != tensors[name].shape:
                raise CogViewError(
                    f"{path} is of another model: its {name} is {list(tensors[name].shape)}, here {list(own.shape)}."
                )
            local(own).copy_(_spread(tensors[name], own))
        return
    try:
        module.load_state_dict(tensors, strict=False)  # a tied weight's second name is not stored
    except RuntimeError as error:
        raise CogViewError(f"{path} is of another model: {str(error).splitlines()[-1].strip()}") from error


def _spread(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor, whole or already sharded like the other."""
    return local(tensor) if isinstance(tensor, DTensor) else part_of(tensor, like)


def _optimizer_tensors(
    module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, torch.Tensor]:
    """Name each optimizer tensor after its parameter: `exp_avg/layers.0.weight`."""
    return {
        f"{key}/{name}": value.detach()
        for name, parameter in module.named_parameters()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizers(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: dict[str, torch.Tensor],
    path: Path,
) -> None:
    parameters = dict(module.named_parameters())
    for optimizer in optimizers:
        optimizer.state.clear()  # a rollback may go to where there was less state
    states = {
        parameter: optimizer.state[parameter]
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for qualified_name, tensor in tensors.items():
        key, _, name = qualified_name.partition("/")
        parameter = parameters.get(name)
        if parameter is None or tensor.shape not in (parameter.shape, torch.Size()):
            raise CogViewError(
                f"{path} is of another model: its optimizer knows {name} {list(tensor.shape)}."
            )
        # Moments take the parameter's layout, or a channels-last run would not resume bit for bit.
        value = tensor.to(parameter.device)
        if isinstance(parameter, DTensor) and tensor.ndim:
            value = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False)
            local(value).copy_(_spread(tensor, parameter))
        elif tensor.shape == parameter.shape and tensor.ndim:
            value = torch.empty_like(parameter, dtype=tensor.dtype).copy_(value)
        states[parameter][key] = value


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write tensors and return the SHA-256 of the file."""
    # Serialised first, so that a full disk is an OSError of our own write.
    data = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    _write_durably(path, data)
    return hashlib.sha256(data).hexdigest()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill in between leaves nothing that looks like one."""
    hidden = unused_path(path.with_name(f".{path.name}.removed"))
    path.replace(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
