#!/usr/bin/env bash
# Packages: torch 2.13.0 (torch.distributed.checkpoint), safetensors 0.8.0.
# Behaviour: both ways to write distributed checkpoints as safetensors write, without an error, what cannot be read.
#   HuggingFaceStorageWriter: with one plain number beside the tensors ("step": 7), the file is no safetensors file
#   any more; neither safetensors nor PyTorch's own reader opens it, and the tensors in it are lost too.
#   FileSystemWriter(serialization_format=SAFETENSORS): not even tensors alone come back by FileSystemReader. The
#   default format keeps both.
# A good guess: a writer that cannot hold a number refuses it when saving, or leaves it out; and what PyTorch writes
#   it reads.
# Whom it hits: everyone who saves {"model": ..., "optimizer": ..., "step": ...} as safetensors. It shows at the
#   resume.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - 2>log <<'PYTHON'
import glob

import safetensors
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import SerializationFormat

print("torch", torch.__version__, "safetensors", safetensors.__version__)


def try_to_read(name, read):
    try:
        read()
    except BaseException as error:  # CheckpointException is no Exception
        print(f"{name}: saved without an error, cannot be read: {str(error).strip().splitlines()[-1][:100]}")
        return False
    print(f"{name}: read")
    return True


def hugging_face(folder, state, empty):
    dcp.save(state, storage_writer=dcp.HuggingFaceStorageWriter(folder))
    own = try_to_read(
        f"HuggingFaceStorageWriter, {list(state)}, by torch",
        lambda: dcp.load(empty, storage_reader=dcp.HuggingFaceStorageReader(folder)),
    )
    (path,) = glob.glob(f"{folder}/*.safetensors")
    return own, try_to_read(
        f"HuggingFaceStorageWriter, {list(state)}, by safetensors", lambda: load_file(path)
    )


def file_system(folder, serialization):
    state, empty = {"weight": torch.ones(3)}, {"weight": torch.zeros(3)}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder, serialization_format=serialization))
    reader = dcp.FileSystemReader(folder)
    return try_to_read(
        f"FileSystemWriter, {serialization.name}", lambda: dcp.load(empty, storage_reader=reader)
    )


seen = {
    "tensors": hugging_face("a", {"weight": torch.ones(3)}, {"weight": torch.zeros(3)}),
    "with step": hugging_face(
        "b", {"weight": torch.ones(3), "step": 7}, {"weight": torch.zeros(3), "step": 0}
    ),
    "file system": file_system("c", SerializationFormat.SAFETENSORS),
    "default": file_system("d", SerializationFormat.TORCH_SAVE),
}
expected = {"tensors": (True, True), "with step": (False, False), "file system": False, "default": True}
if seen != expected:
    print(f"the behaviour is another one now: {seen}")
    raise SystemExit(1)
PYTHON
