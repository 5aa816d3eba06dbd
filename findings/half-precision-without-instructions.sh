#!/usr/bin/env bash
# Package: torch 2.13.0 (products in bfloat16 and float16 on CPU, torch.optim.Muon).
# Behaviour: on an x86 processor without AVX-512 (AMD Zen 2 and 3, Intel desktops), products in bfloat16 and float16
#   do not go by way of float32 but through a plain loop. Turning both operands into float32, multiplying and
#   rounding is many times as fast. torch.optim.Muon makes float32 gradients orthogonal in bfloat16 on any
#   processor, and its step suffers. (As products go here, oneDNN is told to use AVX2 only, so that newer processors
#   show it too: so told, a Zen 4 was 16 to 36 times slower. On a true Zen 3, bfloat16 reached 17 GFLOP/s where float32
#   had 130 to 170; Zen 2 and Intel desktops are inferred, not run. Partly known: pytorch/pytorch, issue 146508.)
# A good guess: half precision without instructions costs a conversion, so at worst somewhat more than float32.
# Whom it hits: who trains with autocast, loads a model in its bfloat16, or takes Muon, on an ordinary CPU or a CI
#   machine: the same results, many times later.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$work"
grep -m 1 "model name" /proc/cpuinfo || true
ONEDNN_MAX_CPU_ISA=AVX2 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import platform
import time

import torch

print("torch", torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability())
if platform.machine() != "x86_64":
    raise SystemExit("this finding is about x86 processors")
torch.set_num_threads(1)


def median_seconds(function):
    function()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[2]


size = 512
a, b = torch.randn(size, size), torch.randn(size, size)
print(f"float32: {2e-9 * size**3 / median_seconds(lambda: a @ b):.1f} GFLOP/s")
ratios = []
for dtype in (torch.bfloat16, torch.float16):
    x, y = a.to(dtype), b.to(dtype)
    direct = median_seconds(lambda: x @ y)
    converted = median_seconds(lambda: (x.float() @ y.float()).to(dtype))
    ratios.append(direct / converted)
    print(
        f"{dtype}: {2e-9 * size**3 / direct:.1f} GFLOP/s, "
        f"by way of float32 {2e-9 * size**3 / converted:.1f}: {ratios[-1]:.0f} times as fast"
    )

weight = torch.nn.Parameter(torch.randn(256, 512))
weight.grad = torch.randn_like(weight)
muon = median_seconds(torch.optim.Muon([weight]).step)


def orthogonal():  # the same five iterations in float32
    x = weight.grad / weight.grad.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x


own = median_seconds(orthogonal)
ratios.append(muon / own)
print(
    f"a step of Muon for 256 x 512 weights: {1e3 * muon:.0f} ms, "
    f"its products in float32 {1e3 * own:.0f} ms: {ratios[-1]:.0f} times as fast"
)
if min(ratios) < 3:
    raise SystemExit("the behaviour is another one now")
PYTHON
