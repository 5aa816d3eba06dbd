"""A trained image tokenizer as a folder that can be shared, and the object that uses it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import save
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, read_versioned
from cogview.folders import atomic_folder, refuse_unlike
from cogview.image.autoencoder import Autoencoder
from cogview.image.config import FOLDER_NAME, AutoencoderConfig, VQGANConfig, VQVAEConfig
from cogview.image.decoder import RefiningDecoder
from cogview.image.decoder_config import DecoderConfig
from cogview.image.decoder_folder import (
    DECODER_FILES,
    DECODERS_NAME,
    load_decoders,
    refuse_lost_decoders,
    save_decoder,
)
from cogview.image.exact import exact_convolutions
from cogview.image.fingerprint import fingerprint_of, fingerprint_of_weights, inference_weights
from cogview.image.kept import KeptPictures, kept_db
from cogview.image.vqgan import VQGAN
from cogview.image.vqvae import VQVAE
from cogview.plain_json import dataclass_from_json, section_from_json
from cogview.tensors import MisfitError, build_to_fit, read_tensors, stored_shapes
from cogview.uninitialised import uninitialised

FORMAT = "cogview-image-tokenizer"
VERSION = 1
TOKENIZER_FILES = (
    "config.json",
    "model.safetensors",
    *(f"{DECODERS_NAME}/*/{name}" for name in DECODER_FILES),
)
_KINDS: dict[str, type[AutoencoderConfig]] = {"vqvae": VQVAEConfig, "vqgan": VQGANConfig}


class ImageTokenizer:
    """Turn images into codes and codes into images.

    Args:
        autoencoder: the trained model; it is switched to evaluation.
        dtype: precision of the convolutions: float32 in all its digits, or bfloat16, which is twice as fast on
            processors that have it, moves pixels by a level or two of 255, and turns some codes into near neighbours,
            one in 700 or one in 15 as the codebook is (measured: `bench/README.md`).
        held_out: what it keeps of pictures like those that it learnt from, if that was measured.
        decoders: further ones for its codes, by name; see `add_decoder`.

    Raises:
        UsageError: a decoder is for other codes, or two draw the same size.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        dtype: torch.dtype = torch.float32,
        held_out: KeptPictures | None = None,
        decoders: Mapping[str, RefiningDecoder] = MappingProxyType({}),
    ):
        # torch's stubs do not know this argument of Module.to.
        self.autoencoder: Autoencoder = autoencoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = autoencoder.config
        self.dtype = dtype
        self.held_out = held_out
        self.fingerprint = fingerprint_of(autoencoder)
        """Names encoder, codebook and own decoder; further decoders do not change it."""
        self._decoders: dict[str, RefiningDecoder] = {}
        for name, decoder in decoders.items():
            self.add_decoder(name, decoder)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.autoencoder).__name__} with {self.num_codes:,} codes of "
            f"{self.downsampling_factor} x {self.downsampling_factor} pixels, {self.fingerprint})"
        )

    @property
    def num_codes(self) -> int:
        """Return the size of the codebook."""
        return self.config.num_codes

    @property
    def downsampling_factor(self) -> int:
        """Return the pixels along one side of the square that one code stands for."""
        return self.config.downsampling_factor

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return next(self.autoencoder.parameters()).device

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Return the codes of images.

        Args:
            images: in [-1, 1], on any device; sides multiples of the downsampling factor.

        Raises:
            UsageError: the images are no floats, have another number of channels, or sides that are no multiples.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise UsageError(
                f"images must be floats in [-1, 1] of shape [b c y x], got {images.dtype} of {list(images.shape)}"
            )
        _, channels, height, width = images.shape
        if channels != 3 or height % self.downsampling_factor or width % self.downsampling_factor:
            raise UsageError(
                f"images must be RGB with sides that are multiples of {self.downsampling_factor} pixels, got "
                f"{channels} channels of {height} x {width}; resize them first"
            )
        images = images.to(self.device, memory_format=torch.channels_last)
        with self._precision():
            return self.autoencoder.encode(images)

    @torch.no_grad()
    def decode(
        self, codes: Int64[Tensor, "b r s"], size_pixels: int | None = None
    ) -> Float[Tensor, "b c y x"]:
        """Return the images of codes, in [-1, 1].

        Args:
            codes: of any grid, on any device.
            size_pixels: of the longer side of the images, drawn by the decoder that there is for that size; by default
                the tokenizer's own decoder draws them as large as they were encoded.

        Raises:
            UsageError: the codes are no whole numbers of shape [b r s], or one lies outside the codebook, or no decoder
                draws that size.
        """
        if codes.ndim != 3 or codes.is_floating_point() or codes.is_complex():
            raise UsageError(
                f"codes must be whole numbers of shape [b r s], got {codes.dtype} of {list(codes.shape)}"
            )
        codes = codes.long()
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.num_codes:
            raise UsageError(
                f"codes must lie in 0..{self.num_codes - 1}, got {int(codes.min())}..{int(codes.max())}; "
                "they may be another tokenizer's"
            )
        scale = None if size_pixels is None else self.scale_for(size_pixels, codes.shape[1], codes.shape[2])
        decoder = next((each for each in self._decoders.values() if scale in each.config.scales), None)
        with self._precision():
            if decoder is None or scale is None:
                return self.autoencoder.decode(codes.to(self.device))
            if not len(codes):
                return self.autoencoder.decode(codes.to(self.device)).repeat(1, 1, scale, scale)
            return decoder(*self.first_drawing(codes), [scale])[scale].clamp(-1.0, 1.0)

    def first_drawing(
        self, codes: Int64[Tensor, "b r s"]
    ) -> tuple[Int64[Tensor, "b r s"], Float[Tensor, "b d r s"], Float[Tensor, "b c y x"]]:
        """Return what a further decoder draws from: the codes, their vectors, the own decoder's images in [-1, 1]."""
        codes = codes.to(self.device)
        return codes, self.autoencoder.quantizer.look_up(codes), self.autoencoder.decode(codes)

    @property
    def decoders(self) -> Mapping[str, RefiningDecoder]:
        """Return the further decoders by name."""
        return MappingProxyType(self._decoders)

    @property
    def scales(self) -> list[int]:
        """Return the sizes that can be drawn, smallest first, in units of the size that was encoded."""
        return sorted({1}.union(*(each.config.scales for each in self._decoders.values())))

    def scale_for(self, size_pixels: int, rows: int, columns: int) -> int:
        """Return in which scale pictures of a grid have a size.

        Args:
            size_pixels: of their longer side.
            rows: of their codes.
            columns: of their codes.

        Raises:
            UsageError: no decoder draws that size.
        """
        side = max(rows, columns) * self.downsampling_factor
        for scale in self.scales:
            if scale * side == size_pixels:
                return scale
        known = " or ".join(str(scale * side) for scale in self.scales)
        raise UsageError(
            f"pictures of {rows} x {columns} codes cannot be drawn with {size_pixels} pixels a side, but with {known}; "
            "`cogview train decoder` learns others"
        )

    def new_decoder(self, config: DecoderConfig) -> RefiningDecoder:
        """Return an untrained decoder for the codes; `UsageError` if the configuration does not fit them."""
        return RefiningDecoder(config, self.num_codes, self.config.code_size, self.downsampling_factor)

    def add_decoder(self, name: str, decoder: RefiningDecoder) -> None:
        """Add a further decoder, in the place of one of the same name.

        Args:
            name: of its folder.
            decoder: for the codes of this tokenizer; it is switched to evaluation.

        Raises:
            UsageError: it is for other codes, or another one draws one of its sizes.
        """
        own = self.num_codes, self.config.code_size, self.downsampling_factor
        if own != (decoder.num_codes, decoder.code_size, decoder.downsampling_factor):
            raise UsageError(f"the decoder {name} is for other codes than this image tokenizer's")
        for other, each in self._decoders.items():
            if other != name and (both := set(each.config.scales) & set(decoder.config.scales)):
                raise UsageError(
                    f"the decoders {other} and {name} both draw at scale {min(both)}: remove one from the folder"
                )
        decoder = decoder.eval().requires_grad_(False)
        # torch's stubs do not know this argument of Module.to.
        self._decoders[name] = decoder.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def kept_db(
        self, images: Float[Tensor, "b c y x"], codes: Int64[Tensor, "b r s"] | None = None
    ) -> Float[Tensor, "b"]:
        """Return how well images are kept by their codes, in dB; see `cogview.image.kept`.

        Args:
            images: as for `encode`.
            codes: theirs, if they are at hand.

        Raises:
            UsageError: as `encode` does.
        """
        copies = self.decode(self.encode(images) if codes is None else codes)
        return kept_db(images.to(self.device), copies, self.downsampling_factor)

    def _precision(self) -> AbstractContextManager[object]:
        """Return the context in which convolutions have the tokenizer's precision."""
        if self.dtype == torch.float32:
            return exact_convolutions()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json`, `model.safetensors` and `decoders`, replacing a folder of that name as a whole.

        Args:
            folder: where to.
            dtype: of the stored weights. float16 halves the file; rounded weights are another tokenizer with
                another fingerprint, so load the folder again before tokenizing with it.

        Raises:
            CogViewError: the folder holds something else, which replacing it would delete.
        """
        weights = {name: weight.to(dtype) for name, weight in inference_weights(self.autoencoder).items()}
        fingerprint = fingerprint_of_weights(self.config, weights)

        def refuse(taken: Path) -> None:
            refuse_unlike(taken, read_config, TOKENIZER_FILES, "an image tokenizer's folder")
            refuse_lost_decoders(taken / DECODERS_NAME, self.decoders)

        with atomic_folder(Path(folder), refuse) as temporary:
            # Not save_file: it makes files that only their owner may read.
            (temporary / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
            content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "kind": kind_of(self.config)}
            if self.held_out is not None:
                content["held_out"] = asdict(self.held_out)
            for name, decoder in self._decoders.items():
                save_decoder(decoder, temporary / DECODERS_NAME / name, fingerprint, dtype)
            atomic_write_json(
                temporary / "config.json",
                content | {"config": asdict(self.config), "fingerprint": fingerprint},
            )


def load_image_tokenizer(
    path: Path | str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> ImageTokenizer:
    """Read a folder that `save_pretrained` wrote.

    Args:
        path: the folder, with `config.json` and `model.safetensors`; or the run that trained it, or a model, the run of
            one, or tokens, which hold such a folder.
        device: where the weights go; the CPU if not given.
        dtype: precision of the convolutions, float32 if not given.

    Raises:
        CogViewError: something is missing, damaged, of another version, or the weights are not those that the
            configuration was written with.
    """
    path = Path(path)
    inner = (path / FOLDER_NAME, path / "model" / FOLDER_NAME, path / "model")
    folder = next((folder for folder in inner if folder.is_dir()), path)
    content = read_config(folder)
    config = config_from_json(content, folder)
    weights_path = folder / "model.safetensors"
    try:
        check_fit(config, stored_shapes(weights_path))
    except MisfitError as error:
        raise CogViewError(
            f"{weights_path}: its tensors are not those of config.json ({error}); the two files belong to different "
            "tokenizers"
        ) from error
    held_out = None
    if "held_out" in content:
        held_out = section_from_json(KeptPictures, content, "held_out", folder / "config.json")
    autoencoder = autoencoder_of(config, read_tensors(weights_path))
    tokenizer = ImageTokenizer(autoencoder.to(device or "cpu"), dtype or torch.float32, held_out)
    if tokenizer.fingerprint != content.get("fingerprint"):
        raise CogViewError(
            f"{folder}: the weights' fingerprint is {tokenizer.fingerprint}, config.json says "
            f"{content.get('fingerprint')}; the two files belong to different tokenizers, copy the folder again"
        )
    for name, decoder in load_decoders(folder / DECODERS_NAME, config, tokenizer.fingerprint).items():
        try:
            tokenizer.add_decoder(name, decoder)
        except UsageError as error:
            raise CogViewError(f"{folder / DECODERS_NAME}: {error}") from error
    return tokenizer


def check_fit(config: AutoencoderConfig, found: Mapping[str, Sequence[int]]) -> None:
    """Compare what a file holds with what a configuration asks for, which takes no memory.

    Args:
        config: as somebody else may have written it.
        found: shapes by name.

    Raises:
        MisfitError: naming what is wrong.
    """
    build_to_fit(lambda: build_autoencoder(config), config.num_blocks_in_all, found, inference_weights)


def autoencoder_of(config: AutoencoderConfig, weights: Mapping[str, Tensor]) -> Autoencoder:
    """Return a trained autoencoder.

    Args:
        config: its configuration.
        weights: of the names and shapes that `check_fit` takes; of any floats.
    """
    with uninitialised("cpu"):
        autoencoder = build_autoencoder(config)
    autoencoder.load_state_dict(dict(weights), strict=False)
    autoencoder.quantizer.take_codebook_as_it_is()
    return autoencoder


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a tokenizer folder's `config.json` after checking its format and version."""
    return read_versioned(folder, "an image tokenizer", FORMAT, VERSION)


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Return a new model of the kind that the configuration is of."""
    if isinstance(config, VQGANConfig):
        return VQGAN(config)
    assert isinstance(config, VQVAEConfig)
    return VQVAE(config)


def kind_of(config: AutoencoderConfig) -> str:
    """Return what a tokenizer's folder calls its kind of model."""
    return next(kind for kind, known in _KINDS.items() if isinstance(config, known))


def config_from_json(content: Mapping[str, Any], folder: Path) -> AutoencoderConfig:
    """Return the configuration in a folder's `config.json`, its lists as tuples again."""
    kind = content.get("kind", "vqvae")  # there was only one when version 1 was first written
    try:
        return dataclass_from_json(_KINDS[kind], content["config"])
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise CogViewError(f"{folder}/config.json: its configuration is not valid ({error})") from error


def lossless_dtype(tokenizer: ImageTokenizer) -> torch.dtype:
    """Return float16 for an image tokenizer whose weights already are rounded to it, else float32.

    To round its weights would make it another tokenizer than tokens, models and decoders were made with.
    """
    halves = {name: weight.half() for name, weight in inference_weights(tokenizer.autoencoder).items()}
    is_lossless = fingerprint_of_weights(tokenizer.config, halves) == tokenizer.fingerprint
    return torch.float16 if is_lossless else torch.float32
