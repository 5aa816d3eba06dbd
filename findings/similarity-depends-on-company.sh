#!/usr/bin/env bash
# Package: torchmetrics 1.9.0 (StructuralSimilarityIndexMeasure), against scikit-image 0.26.0 and pytorch-msssim
#   1.0.0.
# Behaviour: (1) with the default data_range=None the range is that of the whole batch, so a picture's SSIM depends
#   on the pictures beside it: a dim one's rises from 0.25 to 0.69 beside a bright one. (2) Given the range, windows
#   that reach over the border count too, on mirrored pixels; the other two leave them out, so what happens at the
#   edge weighs otherwise.
# A good guess: None means the range of the dtype or of each picture, and one window, sigma and range give one SSIM.
# Whom it hits: who reports an image tokenizer's SSIM, or compares with others' figures: it depends on batch size
#   and order, and an error at the border costs more than elsewhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torchmetrics==1.9.0 scikit-image==0.26.0 pytorch-msssim==1.0.0 \
    torch==2.13.0 numpy==2.4.6
cd "$work"
export OMP_NUM_THREADS=1  # enough here, and quick on a busy machine
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from pytorch_msssim import ssim
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

print(
    *(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "torchmetrics", "scikit-image", "pytorch-msssim")
    )
)
generator = torch.Generator().manual_seed(0)
y, x = torch.meshgrid(torch.arange(128) / 128, torch.arange(128) / 128, indexing="ij")
clean = (0.5 + 0.4 * torch.sin(12 * x) * torch.cos(9 * y)).expand(1, 3, 128, 128)
noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)

dim, dim_noisy = 0.1 + 0.2 * clean, 0.1 + 0.2 * noisy
alone = torchmetrics_ssim(dim_noisy, dim, reduction="none")[0].item()
with_bright = torch.cat([dim_noisy, torch.ones_like(dim)]), torch.cat([dim, torch.zeros_like(dim)])
beside = torchmetrics_ssim(*with_bright, reduction="none")[0].item()
print(f"a dim picture's SSIM by torchmetrics' defaults: {alone:.3f} alone, {beside:.3f} beside a bright one")


def three(picture):
    """Return SSIM by the same window of 11, sigma 1.5 and range 1."""
    rows = [each[0].permute(1, 2, 0).numpy() for each in (picture, clean)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    return (
        torchmetrics_ssim(picture, clean, data_range=1.0).item(),
        ssim(picture, clean, data_range=1.0).item(),
        float(structural_similarity(*rows, data_range=1.0, **options)),
    )


inner, edge = clean.clone(), clean.clone()
inner[..., 60:66, :] = edge[..., :6, :] = torch.rand(1, 3, 6, 128, generator=generator)
names = "torchmetrics", "pytorch-msssim", "scikit-image"
for place, picture in (("in the middle", inner), ("at the edge", edge)):
    values = three(picture)
    print(
        f"six rows of noise {place}:",
        ", ".join(f"{name} {value:.4f}" for name, value in zip(names, values, strict=True)),
    )
own, other, third = three(edge)
if beside - alone < 0.2 or abs(other - third) > 0.001 or other - own < 0.02:
    raise SystemExit("the behaviour is another one now")
PYTHON
