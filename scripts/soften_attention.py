"""Writes a model whose attention is softer: the maps to queries and keys are multiplied by a factor.

    python scripts/soften_attention.py MODEL OUT --factor 0.3

Attention scores shrink by the square of the factor. It is for going on with a model whose attention has saturated, each
token seeing one other, so that hardly a gradient comes through: see `docs/decisions/muon-weight-decay.md`.
"""

from dataclasses import replace
from pathlib import Path

import torch
import tyro

from cogview.models.folder import load_pretrained, save_pretrained


def main(model: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path], *, factor: float) -> None:
    """Write the softer model.

    Args:
        model: a model folder.
        out: the folder to write.
        factor: of the weights and biases of queries and keys.
    """
    parts = load_pretrained(model)
    for block in parts.transformer.blocks:
        linear = block.attention.query_key_value
        num_rows = 2 * linear.in_features  # queries and keys come before the values
        with torch.no_grad():
            linear.weight[:num_rows] *= factor
            linear.bias[:num_rows] *= factor
    bare = replace(parts, card="", samples=b"")  # figures and pictures are not those of the softer model
    save_pretrained(bare, out, torch.float16)
    print(out)


if __name__ == "__main__":
    tyro.cli(main)
