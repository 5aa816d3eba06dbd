"""Converting a released checkpoint takes no second copy of it in memory.

Measured is the largest resident set of a process of its own, above what it had after a small checkpoint had been
converted and all was imported: anonymous memory and what is mapped of files together, so that reading through a map is
no way around it. What the system keeps of written files in its cache, and gives up when others need the memory,
belongs to no process and is not in it.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from released import ROWS, State, write_released

pytestmark = pytest.mark.slow

_SCRIPT = """
import ctypes, gc, os, sys
from pathlib import Path
import torch
from cogview.generation.loading import load
from cogview.runs.convert import convert
from cogview.runs.data_options import ConvertOptions

def kilobytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])

def peak(work):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what others left must not be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = kilobytes("VmRSS")
    result = work()
    return 1024 * (kilobytes("VmHWM") - before)

def read_all():
    return [p.aminmax() for p in load("ours", dtype="float16").transformer.parameters()]

def plainly():
    ranks = [torch.load(path, weights_only=True)["module"] for path in sorted(Path("large").rglob("*.pt"))]
    return {name: torch.cat([rank[name] for rank in ranks]) for name in ranks[0]}

def run(source, out, **options):
    convert(ConvertOptions(source=Path(source), out=Path(out), **options))

os.chdir(sys.argv[1])
run("small", "small-ours")
print(peak(lambda: run("large", "ours")))
print(peak(read_all))
print(peak(lambda: run("ours", "back", to="released")))
print(peak(plainly))
"""


def state_of(hidden: int, layers: int) -> State:
    """Return weights that are all alike."""
    maps = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (4 * hidden, hidden),
        "mlp.dense_4h_to_h": (hidden, 4 * hidden),
    }
    for name in ("input", "post_attention", "third", "fourth"):
        maps[f"{name}_layernorm"] = (hidden,)
    shapes: dict[str, tuple[int, ...]] = {
        "word_embeddings.weight": (ROWS, hidden),
        "transformer.position_embeddings.weight": (1_089, hidden),
        "transformer.final_layernorm.weight": (hidden,),
        "transformer.final_layernorm.bias": (hidden,),
    }
    for layer in range(layers):
        for name, shape in maps.items():
            shapes[f"transformer.layers.{layer}.{name}.weight"] = shape
            shapes[f"transformer.layers.{layer}.{name}.bias"] = shape[:1]
    return {name: torch.full(shape, 0.01, dtype=torch.float16) for name, shape in shapes.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read in the way of Linux")
def test_converting_and_loading_take_less_than_1_3_times_the_checkpoint(tmp_path: Path) -> None:
    state = state_of(hidden=768, layers=8)
    size = sum(tensor.nbytes for tensor in state.values())
    assert size > 200e6
    write_released(state, tmp_path / "large", num_ranks=2)
    write_released(state_of(hidden=64, layers=1), tmp_path / "small")
    script = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True)
    peaks = [int(line) for line in done.stdout.splitlines() if line.isdigit()]
    convert, load, back, plainly = (peak / size for peak in peaks)
    # The source that is mapped and read must be seen at least, or nothing would be measured.
    for found in (convert, load, back):
        assert 0.9 < found < 1.3
    assert plainly > 1.6, "a second copy must show"
