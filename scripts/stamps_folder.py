"""Turn Debian's package tuxpaint-stamps-default (GPL-2) into a folder of captioned pictures, for the tutorial.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default*.deb stamps
    python scripts/stamps_folder.py stamps pictures [N]

About half of its cut-outs are photographs. Each gets its English caption and, where there is one, its Chinese. With N,
every Nth picture is of the split held-out-object, for `bench/decoders.py`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from cogview.data.folder_contents import METADATA
from cogview.files import atomic_write_text
from cogview.folders import atomic_folder


def main(package: Path, out: Path, held_out_every: int = 0) -> None:
    """Write the pictures of the unpacked package into a new folder."""
    if out.exists():
        sys.exit(f"{out} already exists; choose another folder")
    entries: list[dict[str, Any]] = []
    with atomic_folder(out) as folder:
        (folder / "images").mkdir()
        for path in sorted(package.rglob("*.png")):
            caption_file = path.with_suffix(".txt")
            if not caption_file.exists():
                continue
            captions = caption_file.read_text(encoding="utf-8", errors="replace").splitlines()
            english, translations = captions[:1], captions[1:]
            texts = english + [line[11:] for line in translations if line.startswith("zh_TW.utf8=")]
            name = f"images/{len(entries):04}.png"
            with Image.open(path) as picture:
                picture.save(folder / name)
            entry = {"file_name": name, "texts": [text.strip() for text in texts if text.strip()]}
            if held_out_every:
                entry["split"] = "train" if (len(entries) + 1) % held_out_every else "held-out-object"
            entries.append(entry)
        atomic_write_text(
            folder / METADATA,
            "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries),
        )
    print(f"{len(entries)} pictures in {out}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
