#!/usr/bin/env bash
# Package: torch 2.13.0 on a CPU.
# Behaviour: torch.manual_seed formats the whole call stack once for each kind of accelerator that is not there: CUDA,
#   XPU and MTIA, so three times on a CPU, and still twice beside a CUDA device. Each time the source lines of all frames
#   are looked up, with a stat of their files. In a stack of 40 frames a seed took 0.7 ms on a Zen 3, which is hundreds of
#   times what torch.default_generator.manual_seed takes. The numbers drawn afterwards are the same.
# A good guess: a seed is one number that is written into a generator, and costs microseconds.
# Whom it hits: who seeds each step, sample or picture, so that it does not depend on what came before. Seed the
#   generator, and that of the device in use.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$work/seed.py" <<'PYTHON'
import time
import traceback

import torch

print("torch", torch.__version__, "CUDA:", torch.cuda.is_available())
format_stack = traceback.format_stack


def microseconds(seed, depth):
    """Return the time of a seed in a call stack of some depth."""
    if depth:
        return microseconds(seed, depth - 1)
    start = time.perf_counter()
    for number in range(50):
        seed(number)
    return 1e6 * (time.perf_counter() - start) / 50


num_formatted = 0


def counting(*args, **kwargs):
    global num_formatted
    num_formatted += 1
    return format_stack(*args, **kwargs)


torch.manual_seed(7)
drawn = torch.rand(4)
torch.default_generator.manual_seed(7)
assert torch.equal(drawn, torch.rand(4))

times = {depth: microseconds(torch.manual_seed, depth) for depth in (1, 40)}
plain = microseconds(torch.default_generator.manual_seed, 40)
for depth, time_taken in times.items():
    print(f"torch.manual_seed, {depth} frames deep: {time_taken:.0f} microseconds")
print(f"torch.default_generator.manual_seed, 40 frames deep: {plain:.1f} microseconds")
traceback.format_stack = counting
torch.manual_seed(7)
print("call stacks formatted by a seed:", num_formatted)
assert num_formatted == (2 if torch.cuda.is_initialized() else 3)
assert times[40] > 20 * plain
PYTHON
"$work/venv/bin/python" "$work/seed.py"
