"""Converting an image tokenizer takes no second copy of the file in memory; see `test_released_memory`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plain_vqgan import LLAMAGEN, Shape, state_of

pytestmark = pytest.mark.slow

_SCRIPT = """
import ctypes, gc, sys
from pathlib import Path
from cogview.runs.convert import convert
from cogview.runs.data_options import ConvertOptions

def kilobytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])

folder = Path(sys.argv[1])
convert(ConvertOptions(source=folder / "small.pt", out=folder / "small"))
for name in ("whole.pt", "half.pt"):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what others left must not be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = kilobytes("VmRSS")
    convert(ConvertOptions(source=folder / name, out=folder / "out"))
    print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read in the way of Linux")
def test_converting_takes_less_than_1_3_times_the_tokenizers_weights(tmp_path: Path) -> None:
    def fill(*shape: int) -> torch.Tensor:
        return torch.full(shape, 0.01)

    large = Shape(
        channels=64, factors=(1, 2, 4), attention_grids=(2,), inner=256, code_size=8, num_codes=16_384
    )
    state = state_of(LLAMAGEN, large, fill)
    size = sum(tensor.nbytes for tensor in state.values())
    assert size > 40e6
    other = torch.ones(5 * 10**6)  # of the larger model, and not read
    torch.save(
        {f"gen_vision_model.{name}": each for name, each in state.items()} | {"a": other},
        tmp_path / "whole.pt",
    )
    torch.save({"model": {name: each.half() for name, each in state.items()}}, tmp_path / "half.pt")
    torch.save({"model": state_of(LLAMAGEN, Shape(), fill)}, tmp_path / "small.pt")
    script = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True)
    whole, half = map(int, done.stdout.split())
    # The source that is mapped and read must be seen at least, or nothing would be measured.
    assert 0.9 < whole / size < 1.3
    assert 0.9 < half / (size / 2) < 1.3
