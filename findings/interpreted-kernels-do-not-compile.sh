#!/usr/bin/env bash
# Package: triton 3.7.1 (the same with 3.6.0), with torch 2.13.0 on a CPU.
# Behaviour: Triton's interpreter runs kernels that its compiler refuses. A helper that returns early where an argument
#   is None gives right numbers with TRITON_INTERPRET=1. Compiled it is a CompilationError: what stands after the taken
#   branch's return is compiled, too, with None. And the interpreter must be chosen before triton is imported: its own
#   functions, tl.zeros among them, are decorated then. A kernel that is made an interpreted one later ends with "Cannot
#   call @triton.jit'd outside of the scope of a kernel". Compiling for a GPU needs none: the wheel brings ptxas, and
#   triton.compile takes a target.
# A good guess: what the interpreter takes compiles, and the environment variable is read when a kernel is launched.
# Whom it hits: who writes attention kernels and tests them on CPUs alone. Compile them there as well.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 triton==3.7.1 numpy==2.4.6
cat > "$work/kernel.py" <<'PYTHON'
import triton
import triton.language as tl


@triton.jit
def rows(x, at, is_there):
    if is_there is None:
        return tl.load(x + at)
    return tl.load(x + at, mask=is_there, other=0.0)


@triton.jit
def doubled(x, out, num: tl.constexpr):
    at = tl.arange(0, num)
    found = tl.zeros([num], tl.float32)
    found += rows(x, at, None) + rows(x, at, at < num)
    tl.store(out + at, found)
PYTHON
cd "$work"
export TRITON_CACHE_DIR=$work/cache
python=$work/venv/bin/python
"$python" -c 'import triton; print("triton", triton.__version__)'

TRITON_INTERPRET=1 "$python" - <<'PYTHON'
import torch
from kernel import doubled

x, out = torch.arange(16.0), torch.empty(16)
doubled[(1,)](x, out, num=16)
assert torch.equal(out, 2 * x)
print("interpreted: right")
PYTHON

"$python" - <<'PYTHON'
import triton
from kernel import doubled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

source = ASTSource(doubled, {"x": "*fp32", "out": "*fp32", "num": "constexpr"}, constexprs={"num": 16})
try:
    triton.compile(source, target=GPUTarget("cuda", 90, 32))
except triton.CompilationError as error:
    print("compiled for an H100, without one:", type(error).__name__)
else:
    raise SystemExit("it compiles now")
PYTHON

"$python" - <<'PYTHON'
import os

import torch
import triton  # before the variable is set

os.environ["TRITON_INTERPRET"] = "1"
from kernel import doubled

try:
    doubled[(1,)](torch.arange(16.0), torch.empty(16), num=16)
except Exception as error:
    print("chosen after the import:", str(error).splitlines()[-1])
    assert "outside of the scope of a kernel" in str(error)
else:
    raise SystemExit("it may be chosen late now")
PYTHON
