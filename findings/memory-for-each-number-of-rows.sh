#!/usr/bin/env bash
# Package: torch 2.13.0 (linear maps by oneDNN on x86 CPUs: bfloat16 by default, float32 with packed weights).
# Behaviour: for each number of rows that a linear map of some shape meets, oneDNN writes code of its own and keeps it:
#   about half a megabyte and 0.5 ms (AMD Zen 4). Five maps of 256 to 2,048 channels, called with 3 to 130 rows, make a
#   process grow by 350 to 420 MB, a hundred times their weights. float32 without packed weights (MKL) does not grow.
#   Padded to four numbers of rows for each doubling, the same calls grow by a fifth of that.
# A good guess: a linear map needs the memory of its weights and of its input.
# Whom it hits: servers and samplers whose batch or sequence length changes from call to call, on CPU: they take
#   memory for hours that no tensor accounts for, and the first call of each length is several times as slow.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$work"
grep -m 1 "model name" /proc/cpuinfo || true
cat > grow.py <<'PYTHON'
import sys
import time

import torch

kind, rows = sys.argv[1], sys.argv[2]
dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
torch.set_num_threads(1)
shapes = [(256, 768), (256, 256), (256, 1024), (1024, 256), (256, 2048)]
weights = [torch.randn(outputs, inputs).to(dtype) for inputs, outputs in shapes]
packed = [torch.ops.mkldnn._reorder_linear_weight.default(weight) for weight in weights]


def product(x, number):
    if kind == "float32-packed":
        return torch.ops.mkldnn._linear_pointwise.default(x, packed[number], None, "none", [], "")
    return torch.nn.functional.linear(x, weights[number])


def resident_megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def padded(num):
    step = max(1, 2 ** ((num - 1).bit_length() - 3))
    return -(-num // step) * step


with torch.inference_mode():
    for number, (inputs, _) in enumerate(shapes):
        product(torch.randn(2, inputs).to(dtype), number)
    before, first, second = resident_megabytes(), [], []
    for num in range(3, 131):
        for number, (inputs, _) in enumerate(shapes):
            x = torch.randn(padded(num) if rows == "padded" else num, inputs).to(dtype)
            for times in (first, second):
                started = time.perf_counter()
                product(x, number)
                times.append(time.perf_counter() - started)
    grown = resident_megabytes() - before
first.sort(), second.sort()
print(
    f"{kind}, {rows}: grown by {grown:.0f} MB; first call {1e3 * first[len(first) // 2]:.2f} ms, "
    f"second {1e3 * second[len(second) // 2]:.2f} ms"
)
low, high = {
    ("bfloat16", "as-they-come"): (150, 1000),
    ("bfloat16", "padded"): (0, 120),
    ("float32-packed", "as-they-come"): (150, 1000),
    ("float32-packed", "padded"): (0, 120),
    ("float32-plain", "as-they-come"): (-50, 60),
}[kind, rows]
raise SystemExit(None if low <= grown <= high else "this has changed: the finding does not hold here")
PYTHON
"$work/venv/bin/python" - <<'PYTHON'
import platform

import torch

print("torch", torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability())
if platform.machine() != "x86_64" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
    raise SystemExit("this finding is about x86 processors with AVX-512")
PYTHON
for kind in bfloat16 float32-packed; do
  for rows in as-they-come padded; do "$work/venv/bin/python" -W ignore grow.py "$kind" "$rows"; done
done
"$work/venv/bin/python" -W ignore grow.py float32-plain as-they-come
