#!/usr/bin/env bash
# Package: torch 2.13.0 (linear maps on x86 CPUs: MKL, oneDNN, FBGEMM).
# Behaviour: whether a row of a product has the same bits alone and among others goes by dtype and library, and the
#   other way round than one would think: in bfloat16 and in float16 with packed weights it has, for any number of
#   rows; in float32 it has not. The float32 default (MKL) differs for 1 to 3 rows, with two threads also for 5, 6
#   and others (AMD Zen 4; with Intel's AMX no difference was seen); packed for oneDNN, only a single row of 1,536
#   inputs or more differs. On a processor without AVX-512 (Zen 3), packed float16 keeps its bits only for multiples
#   of three rows. What held on all of them, Zen 3, 4 and 5 and an Intel Xeon with AMX, is checked below; the rest
#   is printed.
# A good guess: a row's bits change with the batch anyhow, or only between one row and several.
# Whom it hits: who promises that a seed draws the same picture alone or in a batch, caches by exact results, or
#   tests batched against single decoding. Padding rows to a multiple of four makes the float32 default exact.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$work"
grep -m 1 "model name" /proc/cpuinfo || true
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import platform

import torch
from torch.nn.functional import linear

print("torch", torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability())
if platform.machine() != "x86_64":
    raise SystemExit("this finding is about x86 processors")
generator = torch.Generator().manual_seed(0)


def plain(weight):
    return lambda x: linear(x.to(weight.dtype), weight)


def onednn(weight):
    packed = torch.ops.mkldnn._reorder_linear_weight.default(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise.default(
        x.to(weight.dtype), packed, None, "none", [], ""
    )


def fbgemm(weight):
    packed = torch.ops.quantized.linear_prepack_fp16.default(weight, None)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16.default(x, packed)


has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
kinds = {
    "float32, plain": (plain, torch.float32, 4),
    "float32, oneDNN": (onednn, torch.float32, 2),
    "float16, FBGEMM": (fbgemm, torch.float32, 3),
}
if has_bfloat16:
    kinds["bfloat16, oneDNN"] = (onednn, torch.bfloat16, 1)
failed = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    for inputs, outputs in ((512, 2048), (2048, 512)):
        weight = torch.randn(outputs, inputs, generator=generator)
        x = torch.randn(24, inputs, generator=generator)
        for name, (kind, dtype, multiple) in kinds.items():
            product = kind(weight.to(dtype))
            together = product(x)
            others = [n for n in range(1, 24) if not torch.equal(product(x[:n]), together[:n])]
            print(
                f"{threads} threads, {inputs} to {outputs}, {name}: "
                f"other bits than in 24 rows for {others or 'no number'} of rows"
            )
            failed += [(name, n) for n in others if n % multiple == 0]
if failed:
    raise SystemExit(f"differs where it was the same on all processors seen: {failed}")
PYTHON
