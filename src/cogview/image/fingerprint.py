"""Fingerprint of an image tokenizer: digest of its configuration and inference weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict
from typing import Any

import torch
from torch import Tensor

from cogview.image.autoencoder import Autoencoder
from cogview.image.config import AutoencoderConfig

# Needed by training alone; finetuning restores it from the codebook.
TRAINING_STATE = tuple(
    f"quantizer.{name}" for name in ("cluster_size", "embed_avg", "is_initialised", "temperature")
)
# Fields added to the configuration since version 1, with the behaviour before.
_ADDED_LATER: dict[str, Any] = {
    "encoder_kernel_size": 4,
    "codebook": "moving_average",
    "codebook_initialisation": "encoder_outputs",
    "codebook_weight": 1.0,
    "gumbel_temperatures": (1.0, 0.01),
    "gumbel_annealing_steps": 1_000,
    "norm_groups": 32,
    "bottom_attentions": 1,
    "decoder_output": "pixels",
}


def inference_weights(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """Return the tensors that encoding and decoding need, by name."""
    state = autoencoder.state_dict()
    return {name: state[name].detach().contiguous() for name in sorted(state) if name not in TRAINING_STATE}


def fingerprint_of(autoencoder: Autoencoder) -> str:
    """Return 16 hexadecimal digits: equal ones mean equal codes and equal pictures."""
    return fingerprint_of_weights(autoencoder.config, inference_weights(autoencoder))


def fingerprint_of_weights(
    config: AutoencoderConfig, weights: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> str:
    """Return the fingerprint of a configuration and weights of any precision.

    Args:
        config: of the tokenizer.
        weights: for inference, by name.
        dtype: to which weights are rounded first; unchanged by default.
    """
    # Later fields count only where they are used, so that older fingerprints stay valid.
    fields = {
        name: value for name, value in asdict(config).items() if _ADDED_LATER.get(name, MISSING) != value
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(weights):
        values = weights[name].to("cpu", dtype).to(torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.view(-1).numpy().data)
    return digest.hexdigest()[:16]
