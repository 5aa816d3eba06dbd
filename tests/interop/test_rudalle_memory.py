"""Converting ruDALL-E and RuDOLPH takes at most 1.3 times the file, as `test_released_memory` measures it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cogview.interop.rudalle_layout import layout_of
from rudalle import checkpoint

pytestmark = pytest.mark.slow

_SCRIPT = """
import ctypes, gc, os, sys
from pathlib import Path
import torch
from cogview.runs.convert import convert
from cogview.runs.data_options import ConvertOptions

def kilobytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])

os.chdir(sys.argv[1])
convert(ConvertOptions(source=Path("small.pt"), out=Path("small"), num_heads=2))
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
convert(ConvertOptions(source=Path("large.pt"), out=Path("large"), num_heads=2))
print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.parametrize("rudolph", [False, True])
def test_a_conversion_takes_little_more_than_the_file(tmp_path: Path, rudolph: bool) -> None:
    small = checkpoint(rudolph=rudolph)
    torch.save(small, tmp_path / "small.pt")
    assert layout_of(
        small, {}, num_heads=2, sequence=None if rudolph else "v3", kernel_sizes=(3, 5) if rudolph else None
    )
    # The same with 16 times the channels, and more texts and codes: as in RuDOLPH, the head is an eighth of the file.
    large = {}
    for name, each in small.items():
        if "mask" in name:
            large[name] = each
            continue
        shape = [16 * size if size % 32 == 0 else size for size in each.shape]
        if name.startswith(("text_emb", "image_emb", "to_logits.1")):
            shape[0] = {"text_": 12_006, "image": 8_000, "to_lo": 20_006}[name[:5]]
        large[name] = torch.full(shape, 0.01, dtype=torch.float16)
    torch.save(large, tmp_path / "large.pt")
    size = (tmp_path / "large.pt").stat().st_size
    assert size > 80 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1.3 * size
