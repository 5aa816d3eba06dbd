#!/usr/bin/env bash
# Package: torch 2.13.0 (scaled_dot_product_attention on CPU).
# Behaviour: three ordinary things make it compute and keep all T x T weights, without a word: dropout, a bias that
#   learns (attn_mask with requires_grad), and a mask of three dimensions, (heads, T, T), though the same mask as
#   (1, heads, T, T) stays fused. Which kernel runs does not depend on the processor; the times printed do.
# A good guess: the fused kernel runs for every mask that broadcasts, and for dropout as on a GPU.
# Whom it hits: who trains on CPU with dropout 0.1, the paper's value: attention's memory grows with T squared, and
#   a step takes several times as long.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import time

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

print("torch", torch.__version__, "vector instructions", torch.backends.cpu.get_cpu_capability())
torch.set_num_threads(1)
heads, length = 4, 1024


class Watch(TorchDispatchMode):
    """Notes whether the fused operator is called, and how many bytes the results of all operators have."""

    def __init__(self):
        super().__init__()
        self.is_fused, self.largest = False, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.is_fused |= "flash_attention_for_cpu" in str(function)
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple) else (result,):
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.numel())
        return result


def look(name, **options):
    q, k, v = (torch.randn(1, heads, length, 64, requires_grad=True) for _ in range(3))
    start = time.perf_counter()
    scaled_dot_product_attention(q, k, v, **options).sum().backward()
    seconds = time.perf_counter() - start
    with Watch() as watch:
        scaled_dot_product_attention(q, k, v, **options).sum().backward()
    print(
        f"{name:32} {'fused' if watch.is_fused else 'not fused'}, "
        f"largest tensor {4 * watch.largest / 2**20:.0f} MiB, {seconds:.2f} s"
    )
    return watch.is_fused, watch.largest >= heads * length**2


mask = torch.ones(heads, length, length, dtype=torch.bool).tril()
look("(the first call)")
seen = [
    look("nothing else"),
    look("causal", is_causal=True),
    look("mask (1, heads, T, T)", attn_mask=mask[None]),
    look("mask (heads, T, T)", attn_mask=mask),
    look("bias", attn_mask=torch.zeros(length, length)),
    look("bias that learns", attn_mask=torch.zeros(length, length, requires_grad=True)),
    look("causal, dropout", is_causal=True, dropout_p=0.1),
]
if [fused for fused, _ in seen] != [True, True, True, False, True, False, False]:
    raise SystemExit("the behaviour is another one now")
if any(not fused and not holds_all for fused, holds_all in seen):
    raise SystemExit("it is not fused, but does not hold all weights any more")
PYTHON
