#!/usr/bin/env bash
# Package: transformers 5.23.0 (Emu3's image processor and image tokenizer).
# Behaviour: the codes of a picture change with the pictures beside it. The processor pads all pictures of a batch
#   to the largest one, the encoder's norms and attention see the padding, and only the codes are cropped. Alone, or
#   beside pictures of its own size, a picture has the same codes. (Random weights here: how many change depends on
#   them.)
# A good guess: `image_sizes` is handed over so that padding is left out, and a picture's codes are its own.
# Whom it hits: everyone who tokenizes pictures of several shapes in batches: data sets depend on the batch size and
#   the order of the files, and on nothing that is written down.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 pillow==13.0.0 numpy==2.4.6 torch==2.13.0
cd "$work"
export OMP_NUM_THREADS=1  # enough here, and quick on a busy machine
export HF_HOME="$work/cache" HF_HUB_OFFLINE=1
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
import transformers
from PIL import Image
from transformers import Emu3ImageProcessor, Emu3VQVAE, Emu3VQVAEConfig

print("torch", torch.__version__, "transformers", transformers.__version__)
torch.manual_seed(0)
tokenizer = Emu3VQVAE(
    Emu3VQVAEConfig(
        codebook_size=512,
        embed_dim=4,
        latent_channels=4,
        base_channels=32,
        channel_multiplier=[1, 2, 2, 4],
        num_res_blocks=1,
        attn_resolutions=[3],
        hidden_size=128,
        num_attention_heads=1,
    )
).eval()
torch.nn.init.normal_(tokenizer.quantize.embedding.weight, std=0.5)
processor = Emu3ImageProcessor(min_pixels=64 * 64, max_pixels=128 * 128)


def picture(height, width):
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return Image.fromarray((127.5 + 120 * waves).astype(np.uint8))


def codes(*pictures):
    batch = processor(list(pictures), return_tensors="pt")
    with torch.no_grad():
        return tokenizer.encode(batch["pixel_values"], batch["image_sizes"]).image_tokens[0]


square, tall = picture(96, 96), picture(128, 96)
alone, beside_itself, beside_tall = codes(square), codes(square, square), codes(square, tall)
equal, company = ((alone == other).float().mean().item() for other in (beside_itself, beside_tall))
print(
    f"codes of a square picture {tuple(alone.shape)}: {equal:.0%} are the same beside another square one, "
    f"{company:.0%} beside a taller one"
)
if equal < 0.99 or company > 0.9:
    raise SystemExit("the behaviour is another one now")
PYTHON
