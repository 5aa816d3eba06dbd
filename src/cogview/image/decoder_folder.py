"""Folders of additional decoders inside an image tokenizer's folder."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, read_versioned
from cogview.folders import is_part
from cogview.image.config import AutoencoderConfig
from cogview.image.decoder import RefiningDecoder, fingerprint_of_decoder
from cogview.image.decoder_config import DecoderConfig
from cogview.plain_json import dataclass_from_json
from cogview.tensors import MisfitError, build_to_fit, read_tensors, stored_shapes
from cogview.uninitialised import uninitialised

DECODERS_NAME = "decoders"
"""Name of the folder of further decoders."""
DECODER_FILES = ("config.json", "model.safetensors")

FORMAT = "cogview-decoder"
VERSION = 1


def save_decoder(
    decoder: RefiningDecoder, folder: Path, image_tokenizer: str, dtype: torch.dtype = torch.float32
) -> None:
    """Write a decoder into a new folder.

    Args:
        decoder: the decoder.
        folder: to create.
        image_tokenizer: fingerprint of its image tokenizer.
        dtype: of the stored weights; float16 in any case if that is lossless.
    """
    if fingerprint_of_decoder(decoder, torch.float16) == fingerprint_of_decoder(decoder):
        dtype = torch.float16
    folder.mkdir(parents=True)
    weights = {name: weight.to(dtype).contiguous() for name, weight in decoder.state_dict().items()}
    # save_file would make files that only their owner may read.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    atomic_write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "image_tokenizer": image_tokenizer,
            "config": asdict(decoder.config),
            "fingerprint": fingerprint_of_decoder(decoder, dtype),
        },
    )


def load_decoder(folder: Path, config: AutoencoderConfig, image_tokenizer: str) -> RefiningDecoder:
    """Read a decoder.

    Args:
        folder: of the decoder.
        config: of the image tokenizer.
        image_tokenizer: fingerprint of the image tokenizer.

    Raises:
        CogViewError: something is missing, damaged, of another version, or for another image tokenizer.
    """
    content = read_versioned(folder, "a decoder", FORMAT, VERSION)
    if content.get("image_tokenizer") != image_tokenizer:
        raise CogViewError(
            f"{folder}: a decoder for the image tokenizer {content.get('image_tokenizer')}, but this one is "
            f"{image_tokenizer}: move it to its own"
        )
    try:
        shape = dataclass_from_json(DecoderConfig, content["config"])
        shape.check_codes(config.downsampling_factor)
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise CogViewError(f"{folder}/config.json: its configuration is not valid ({error})") from error
    path = folder / "model.safetensors"

    def build() -> RefiningDecoder:
        return RefiningDecoder(shape, config.num_codes, config.code_size, config.downsampling_factor)

    try:
        build_to_fit(build, shape.num_blocks_in_all, stored_shapes(path))
    except MisfitError as error:
        raise CogViewError(
            f"{path}: its tensors are not those of config.json ({error}); the two files belong to different decoders"
        ) from error
    with uninitialised("cpu"):
        decoder = build()
    tensors = read_tensors(path)
    if decoder.from_neighbourhood is not None:
        # Two thirds of a decoder's memory, of which a picture reads little: left in the stored precision.
        decoder.from_neighbourhood.vectors.to(tensors["from_neighbourhood.vectors.weight"].dtype)
    decoder.load_state_dict(tensors)
    del tensors
    fingerprint = fingerprint_of_decoder(decoder)
    if fingerprint != content.get("fingerprint"):
        raise CogViewError(
            f"{folder}: the weights' fingerprint is {fingerprint}, config.json says {content.get('fingerprint')}; the "
            "two files belong to different decoders, copy the folder again"
        )
    return decoder


def load_decoders(
    folder: Path, config: AutoencoderConfig, image_tokenizer: str
) -> dict[str, RefiningDecoder]:
    """Read all decoders of a folder by name, if it exists. Other subfolders cause a warning.

    Raises:
        CogViewError: as `load_decoder` does.
    """
    if not folder.is_dir():
        return {}
    return {
        each.name: load_decoder(each, config, image_tokenizer)
        for each in sorted(folder.iterdir())
        if is_part(each, "decoder")
    }


def refuse_lost_decoders(folder: Path, kept: Collection[str]) -> None:
    """Check that replacing a folder of decoders loses none.

    Args:
        folder: of decoders; may be missing.
        kept: names of the decoders of its replacement.

    Raises:
        CogViewError: a decoder would be lost.
    """
    names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    lost = next((name for name in names if name not in kept), None)
    if lost is not None:
        raise CogViewError(
            f"{folder} holds the decoder {lost}, which this image tokenizer lacks, so it is not replaced: choose "
            "another path."
        )
