#!/usr/bin/env bash
# Packages: datasets 5.2.0 with pillow 13.0.0; litdata 0.2.76 (JPEG only).
# Behaviour: a picture that was opened from a file and then changed in place (ImageDraw, thumbnail, paste) is stored
#   as the file was before. datasets does so in from_dict, from_generator and map alike: it takes the picture's
#   `filename` and not its pixels. litdata's JPEG serializer reads the file again. What returns a new picture
#   (resize, crop) is stored as it should be.
# A good guess: the picture that one hands over is stored, as Image.save would do.
# Whom it hits: who blacks out faces or number plates with ImageDraw, or shrinks with thumbnail(), before sharing or
#   training: the data set has the faces, in full size, and nothing says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0 litdata==0.2.76 pillow==13.0.0 numpy==2.4.6 torch==2.13.0
cd "$work"
export OMP_NUM_THREADS=1  # enough here, and quick on a busy machine
export HF_HOME="$work/cache" HF_HUB_OFFLINE=1
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata
import io

import datasets
import numpy as np
import PIL
from litdata.streaming.serializers import JPEGSerializer
from PIL import Image, ImageDraw

print(
    "datasets",
    datasets.__version__,
    "litdata",
    importlib.metadata.version("litdata"),
    "pillow",
    PIL.__version__,
)
datasets.disable_progress_bars()
Image.new("RGB", (400, 300), "white").save("face.png")
Image.new("RGB", (400, 300), "white").save("face.jpg", quality=95)


def blacken(picture):
    ImageDraw.Draw(picture).rectangle((0, 0, 400, 300), fill="black")
    return picture


def shrink(picture):
    picture.thumbnail((64, 64))
    return picture


def resize(picture):
    return picture.resize((64, 48))


features = datasets.Features({"image": datasets.Image()})


def of_from_dict(change, path):
    return datasets.Dataset.from_dict({"image": [change(Image.open(path))]}, features=features)[0]["image"]


def of_map(change, path):
    data = datasets.Dataset.from_dict({"image": [path]}, features=features)
    return data.map(lambda row: {"image": change(row["image"])})[0]["image"]


def of_litdata(change, path):
    data, _ = JPEGSerializer().serialize(change(Image.open(path)))
    return Image.open(io.BytesIO(data))


seen = {}
for way, path in (
    (of_from_dict, "face.png"),
    (of_map, "face.png"),
    (of_map, "face.jpg"),
    (of_litdata, "face.jpg"),
):
    for change in (blacken, shrink, resize):
        handed, stored = change(Image.open(path)), way(change, path)
        is_kept = (
            handed.size == stored.size and abs(np.asarray(handed).mean() - np.asarray(stored).mean()) < 2
        )
        print(
            f"{way.__name__[3:]}, {path}, {change.__name__}: handed over {handed.size}, brightness "
            f"{np.asarray(handed).mean():.0f}; stored {stored.size}, {np.asarray(stored).mean():.0f}"
        )
        seen.setdefault(change.__name__, set()).add(is_kept)
if seen != {"blacken": {False}, "shrink": {False}, "resize": {True}}:
    raise SystemExit(f"the behaviour is another one now: {seen}")
PYTHON
