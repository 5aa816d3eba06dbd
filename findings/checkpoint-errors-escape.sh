#!/usr/bin/env bash
# Package: torch 2.13.0 (torch.distributed.checkpoint).
# Behaviour: CheckpointException, which load and save raise for whatever goes wrong (a missing key, another shape, a
#   full disk), derives from BaseException and not from Exception. "except Exception" lets it through.
# A good guess: an error of a library is an Exception, as those of torch.save and torch.load are.
# Whom it hits: everyone who tries the newest checkpoint and falls back on the one before, or writes a checkpoint
#   "if possible" and trains on: the process ends instead, and a thread pool or server loop that guards its work
#   with "except Exception" dies with it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os

import torch
import torch.distributed.checkpoint as dcp

print("torch", torch.__version__)
dcp.save({"weight": torch.ones(2)}, checkpoint_id="newest")  # of an older model, without the bias


def resume() -> str:
    try:
        dcp.load({"weight": torch.zeros(2), "bias": torch.zeros(2)}, checkpoint_id="newest")
    except Exception:
        return "fell back on the checkpoint before"
    return "loaded"


def save_if_possible() -> str:
    open("a-file", "w").close()
    try:
        dcp.save({"weight": torch.ones(2)}, checkpoint_id=os.path.join("a-file", "folder"))
    except Exception:
        return "went on without"
    return "saved"


escaped = []
for attempt in (resume, save_if_possible):
    try:
        print(f"{attempt.__name__}: {attempt()}")
    except BaseException as error:
        print(
            f"{attempt.__name__}: {type(error).__name__} went past `except Exception`; "
            f"its bases: {type(error).__bases__}"
        )
        escaped.append(not isinstance(error, Exception))
if escaped != [True, True]:
    raise SystemExit("the behaviour is another one now")
PYTHON
