#!/usr/bin/env bash
# Package: vector-quantize-pytorch 1.32.0.
# Behaviour: with affine_param=True, get_output_from_indices returns other vectors than the forward pass did for the
#   same indices: it looks them up in the codebook without the learned shift and scale. In eval mode, after
#   training. With affine_param=False the two are equal.
# A good guess: forward's output is a function of the indices, and this method is that function.
# Whom it hits: everyone who trains an image tokenizer with this option and then a transformer on its codes.
#   Reconstructions while training look right, every picture decoded from codes is wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet vector-quantize-pytorch==1.32.0 einops==0.8.2 torch==2.13.0 numpy==2.4.6
cd "$work"
export OMP_NUM_THREADS=1  # enough here, and quick on a busy machine
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from vector_quantize_pytorch import VectorQuantize

print(
    "torch",
    torch.__version__,
    "vector-quantize-pytorch",
    importlib.metadata.version("vector-quantize-pytorch"),
)


def errors(affine_param):
    """Return the squared error of the forward pass and of decoding its indices."""
    torch.manual_seed(0)
    quantizer = VectorQuantize(dim=8, codebook_size=256, affine_param=affine_param).train()
    for _ in range(100):
        quantizer(3 + 2 * torch.randn(16, 64, 8))
    features = 3 + 2 * torch.randn(4, 64, 8)
    with torch.no_grad():
        output, indices, _ = quantizer.eval()(features)
        decoded = quantizer.get_output_from_indices(indices)
    forward, later = ((each - features).square().mean().item() for each in (output, decoded))
    print(
        f"affine_param={affine_param}: squared error of the forward pass {forward:.2f}, "
        f"decoded from its indices {later:.2f}; "
        f"largest difference {(output - decoded).abs().max():.2g}"
    )
    return forward, later


plain, affine = errors(False), errors(True)
if plain[0] != plain[1] or affine[1] < 2 * affine[0]:
    raise SystemExit("the behaviour is another one now")
PYTHON
