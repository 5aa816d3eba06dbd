"""Folder of an image tokenizer: configuration, weights and further decoders."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, read_versioned
from cogview.folders import atomic_folder, refuse_unlike
from cogview.image.autoencoder import Autoencoder
from cogview.image.config import AutoencoderConfig, VQGANConfig, VQVAEConfig
from cogview.image.decoder import RefiningDecoder
from cogview.image.decoder_folder import DECODER_FILES, DECODERS_NAME, refuse_lost_decoders, save_decoder
from cogview.image.fingerprint import fingerprint_of_weights, inference_weights
from cogview.image.reconstruction_quality import ReconstructionQuality
from cogview.image.vqgan import VQGAN
from cogview.image.vqvae import VQVAE
from cogview.plain_json import dataclass_from_json
from cogview.tensors import build_to_fit, write_weights
from cogview.uninitialised import uninitialised

FORMAT = "cogview-image-tokenizer"
VERSION = 1
TOKENIZER_FILES = (
    "config.json",
    "model.safetensors",
    *(f"{DECODERS_NAME}/*/{name}" for name in DECODER_FILES),
)
_KINDS: dict[str, type[AutoencoderConfig]] = {"vqvae": VQVAEConfig, "vqgan": VQGANConfig}


def write_tokenizer_folder(
    folder: Path,
    config: AutoencoderConfig,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    held_out: ReconstructionQuality | None = None,
    decoders: Mapping[str, RefiningDecoder] = MappingProxyType({}),
    source: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """Write `config.json`, `model.safetensors` and `decoders`, replacing the folder; return the fingerprint.

    Weights are written one after the other, and no copy of all is made.

    Args:
        folder: output folder.
        config: of the tokenizer.
        weights: for inference, by name; may be memory-mapped.
        dtype: of the stored weights; unchanged by default.
        held_out: quality of reconstructions of held-out pictures, if measured.
        decoders: further decoders by name.
        source: facts about the file that it was converted from, if it was; copies of the folder lack them.

    Raises:
        CogViewError: the folder contains something else, which would be deleted.
    """
    fingerprint = fingerprint_of_weights(config, weights, dtype)

    def refuse(taken: Path) -> None:
        refuse_unlike(taken, read_config, TOKENIZER_FILES, "an image tokenizer's folder")
        refuse_lost_decoders(taken / DECODERS_NAME, decoders)

    with atomic_folder(folder, refuse) as temporary:
        write_weights(temporary / "model.safetensors", weights, dtype)
        content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "kind": kind_of(config)}
        if held_out is not None:
            content["held_out"] = asdict(held_out)
        if source:
            content["source"] = dict(source)
        for name, decoder in decoders.items():
            save_decoder(decoder, temporary / DECODERS_NAME / name, fingerprint, dtype or torch.float32)
        atomic_write_json(
            temporary / "config.json", content | {"config": asdict(config), "fingerprint": fingerprint}
        )
    return fingerprint


def check_fit(config: AutoencoderConfig, found: Mapping[str, Sequence[int]]) -> None:
    """Check the tensors of a file against a configuration, without allocating them.

    Args:
        config: untrusted configuration.
        found: shapes by name.

    Raises:
        MisfitError: with the first difference.
    """
    build_to_fit(lambda: build_autoencoder(config), config.num_blocks_in_all, found, inference_weights)


def autoencoder_of(config: AutoencoderConfig, weights: Mapping[str, Tensor]) -> Autoencoder:
    """Create a trained autoencoder.

    Args:
        config: its configuration.
        weights: checked by `check_fit`, of any float type.
    """
    with uninitialised("cpu"):
        autoencoder = build_autoencoder(config)
    autoencoder.load_state_dict(dict(weights), strict=False)
    autoencoder.quantizer.mark_initialised()
    return autoencoder


def read_config(folder: Path) -> dict[str, Any]:
    """Read a tokenizer's `config.json` and check its format and version."""
    return read_versioned(folder, "an image tokenizer", FORMAT, VERSION)


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Create an untrained model."""
    if isinstance(config, VQGANConfig):
        return VQGAN(config)
    assert isinstance(config, VQVAEConfig)
    return VQVAE(config)


def kind_of(config: AutoencoderConfig) -> str:
    """Return the name of a model's kind in `config.json`."""
    return next(kind for kind, known in _KINDS.items() if isinstance(config, known))


def config_from_json(content: Mapping[str, Any], folder: Path) -> AutoencoderConfig:
    """Parse the configuration of a folder's `config.json`."""
    kind = content.get("kind", "vqvae")  # the only one when version 1 was introduced
    try:
        return dataclass_from_json(_KINDS[kind], content["config"])
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise CogViewError(f"{folder}/config.json: its configuration is not valid ({error})") from error
