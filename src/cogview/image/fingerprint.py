"""What names an image tokenizer: a digest of its configuration and of the weights that encode and decode."""

import hashlib
import json
from dataclasses import MISSING, asdict
from typing import Any

import torch
from torch import Tensor

from cogview.image.autoencoder import Autoencoder
from cogview.image.config import AutoencoderConfig

# What only training needs; a finetune starts it afresh from the codebook.
TRAINING_STATE = tuple(
    f"quantizer.{name}" for name in ("cluster_size", "embed_avg", "is_initialised", "temperature")
)
# Added to the configuration since version 1 was first written, with what was so before.
_ADDED_LATER: dict[str, Any] = {
    "encoder_kernel_size": 4,
    "codebook": "moving_average",
    "codebook_initialisation": "encoder_outputs",
    "codebook_weight": 1.0,
    "gumbel_temperatures": (1.0, 0.01),
    "gumbel_annealing_steps": 1_000,
    "norm_groups": 32,
}


def inference_weights(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """Return the tensors that encoding and decoding need, by name."""
    state = autoencoder.state_dict()
    return {name: state[name].detach().contiguous() for name in sorted(state) if name not in TRAINING_STATE}


def fingerprint_of(autoencoder: Autoencoder) -> str:
    """Return 16 hexadecimal digits that name a tokenizer: equal means equal codes and equal pictures."""
    return fingerprint_of_weights(autoencoder.config, inference_weights(autoencoder))


def fingerprint_of_weights(config: AutoencoderConfig, weights: dict[str, Tensor]) -> str:
    """Return the fingerprint of a configuration and weights, whatever precision they are stored in."""
    # What was added to the configuration later counts only where it is used, so that older fingerprints stay.
    counted = {
        name: value for name, value in asdict(config).items() if _ADDED_LATER.get(name, MISSING) != value
    }
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode())
    for name in sorted(weights):
        values = weights[name].to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.view(-1).numpy().data)
    return digest.hexdigest()[:16]
