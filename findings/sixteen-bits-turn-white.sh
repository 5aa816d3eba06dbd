#!/usr/bin/env bash
# Packages: img2dataset 1.47.0 with opencv-python-headless 4.14.0.94.
# Behaviour: PNGs of 16 bits a channel come out (nearly) white, with status "success": their 0 to 65,535 are cut off
#   at 255 when the JPEG is written, instead of being divided.
# A good guess: they are reduced to 8 bits as any viewer does, or counted as failures.
# Whom it hits: everyone whose list of pictures has scans, renderings, depth maps or microscopy: white squares with
#   true captions in the training set, which no status, filter or counter shows. (A server on the loopback address
#   serves them here.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet img2dataset==1.47.0 opencv-python-headless==4.14.0.94 \
    pillow==13.0.0 numpy==2.4.6
cd "$work"
export NO_ALBUMENTATIONS_UPDATE=1 WANDB_MODE=disabled
cat > try.py <<'PYTHON'
import functools
import glob
import http.server
import importlib.metadata
import json
import os
import threading

import numpy as np
from img2dataset import download
from PIL import Image


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    print(
        *(f"{name} {importlib.metadata.version(name)}" for name in ("img2dataset", "opencv-python-headless"))
    )
    os.mkdir("web")
    slope = np.linspace(0, 1, 256)[None].repeat(256, 0)
    Image.fromarray((slope * 255).astype(np.uint8)).save("web/8-bits.png")
    Image.fromarray((slope * 65535).astype(np.uint16)).save("web/16-bits.png")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory="web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open("list.txt", "w") as file:
        file.writelines(f"http://127.0.0.1:{server.server_port}/{name}-bits.png\n" for name in (8, 16))
    download(url_list="list.txt", output_folder="out", processes_count=1, thread_count=1, image_size=128)
    seen = {}
    for path in sorted(glob.glob("out/*/*.json")):
        with open(path) as file:
            record = json.load(file)
        pixels = np.asarray(Image.open(path.replace(".json", ".jpg")).convert("L"))
        name = record["url"].rsplit("/", 1)[1]
        seen[name] = record["status"], bool(np.median(pixels) > 250)
        print(
            f"{name}: status {record['status']}, mean {pixels.mean():.0f} of 255 (true: 127), "
            f"median {np.median(pixels):.0f}"
        )
    if seen != {"8-bits.png": ("success", False), "16-bits.png": ("success", True)}:
        print(f"the behaviour is another one now: {seen}")
        raise SystemExit(1)
PYTHON
"$work/venv/bin/python" -W ignore try.py 2>log | grep -e bits -e img2dataset -e behaviour
