"""Trained image tokenizer."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.image.autoencoder import Autoencoder
from cogview.image.config import FOLDER_NAME
from cogview.image.decoder import RefiningDecoder
from cogview.image.decoder_config import DecoderConfig
from cogview.image.decoder_folder import DECODERS_NAME, load_decoders
from cogview.image.exact_convolutions import exact_convolutions
from cogview.image.fingerprint import fingerprint_of, fingerprint_of_weights, inference_weights
from cogview.image.reconstruction_quality import ReconstructionQuality, kept_db
from cogview.image.tokenizer_folder import (
    autoencoder_of,
    check_fit,
    config_from_json,
    read_config,
    write_tokenizer_folder,
)
from cogview.plain_json import section_from_json
from cogview.tensors import MisfitError, read_tensors, stored_shapes


class ImageTokenizer:
    """Encoder of images as codes, and decoder.

    Args:
        autoencoder: the trained model; it is switched to evaluation.
        dtype: of the convolutions: exact float32, or bfloat16, which is twice as fast on CPUs that support it. It
            changes pixels by one or two levels of 255, and replaces some codes by near neighbours: one in 700 or one
            in 15, depending on the codebook (measured: `bench/README.md`).
        held_out: quality of its reconstructions of held-out pictures, if measured.
        decoders: further decoders of its codes, by name; see `add_decoder`.

    Raises:
        UsageError: a decoder is for other codes, or two draw the same size.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        dtype: torch.dtype = torch.float32,
        held_out: ReconstructionQuality | None = None,
        decoders: Mapping[str, RefiningDecoder] = MappingProxyType({}),
    ):
        # torch's stubs do not know this argument of Module.to.
        self.autoencoder: Autoencoder = autoencoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = autoencoder.config
        self.dtype = dtype
        self.held_out = held_out
        self.fingerprint = fingerprint_of(autoencoder)
        """Of encoder, codebook and own decoder; further decoders do not change it."""
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
        """Return the side in pixels of the square that a code stands for."""
        return self.config.downsampling_factor

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.autoencoder.parameters()).device

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Encode images.

        Args:
            images: in [-1, 1], on any device; sides multiples of the downsampling factor.

        Raises:
            UsageError: the images are not floats, or have the wrong channels or sides.
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
        """Decode codes to images in [-1, 1].

        Args:
            codes: of any grid, on any device.
            size_pixels: longer side of the images, drawn by the decoder for that size; by default the tokenizer's own
                decoder draws them in the encoded size.

        Raises:
            UsageError: the codes are not integers of shape [b r s] within the codebook, or no decoder draws that size.
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
                return self.autoencoder.decode(codes.to(self.device), scale or 1)
            if not len(codes):
                return self.autoencoder.decode(codes.to(self.device)).repeat(1, 1, scale, scale)
            return decoder(*self.first_drawing(codes), [scale])[scale].clamp(-1.0, 1.0)

    def first_drawing(
        self, codes: Int64[Tensor, "b r s"]
    ) -> tuple[Int64[Tensor, "b r s"], Float[Tensor, "b d r s"], Float[Tensor, "b c y x"]]:
        """Return the inputs of a further decoder: codes, their vectors, the own decoder's images in [-1, 1]."""
        codes = codes.to(self.device)
        return codes, self.autoencoder.quantizer.look_up(codes), self.autoencoder.decode(codes)

    @property
    def decoders(self) -> Mapping[str, RefiningDecoder]:
        """Return the further decoders by name."""
        return MappingProxyType(self._decoders)

    @property
    def scales(self) -> list[int]:
        """Return the possible sizes, smallest first, in units of the encoded size."""
        return sorted({*self.config.scales}.union(*(each.config.scales for each in self._decoders.values())))

    def scale_for(self, size_pixels: int, rows: int, columns: int) -> int:
        """Return the scale at which pictures of a grid have a size.

        Args:
            size_pixels: longer side of the pictures.
            rows: of codes.
            columns: of codes.

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
            "`cogview train decoder` trains decoders for other sizes"
        )

    def new_decoder(self, config: DecoderConfig) -> RefiningDecoder:
        """Create an untrained decoder for the codes; `UsageError` if the configuration does not fit them."""
        return RefiningDecoder(config, self.num_codes, self.config.code_size, self.downsampling_factor)

    def add_decoder(self, name: str, decoder: RefiningDecoder) -> None:
        """Add a further decoder, or replace the one of that name.

        Args:
            name: of its folder.
            decoder: for the codes of this tokenizer; it is switched to evaluation.

        Raises:
            UsageError: it is for other codes, or another decoder draws one of its sizes.
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
        """Return the quality of reconstructions in dB; see `cogview.image.reconstruction_quality`.

        Args:
            images: as for `encode`.
            codes: of the images, if known.

        Raises:
            UsageError: as in `encode`.
        """
        copies = self.decode(self.encode(images) if codes is None else codes)
        return kept_db(images.to(self.device), copies, self.downsampling_factor)

    def _precision(self) -> AbstractContextManager[object]:
        """Return a context in which convolutions have the tokenizer's precision."""
        if self.dtype == torch.float32:
            return exact_convolutions()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json`, `model.safetensors` and `decoders`, replacing the folder.

        Args:
            folder: output folder.
            dtype: of the stored weights. float16 halves the file; rounded weights have another fingerprint, so load the
                folder again before tokenizing with it.

        Raises:
            CogViewError: the folder contains something else, which would be deleted.
        """
        write_tokenizer_folder(
            Path(folder),
            self.config,
            inference_weights(self.autoencoder),
            dtype,
            self.held_out,
            self._decoders,
        )


def load_image_tokenizer(
    path: Path | str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> ImageTokenizer:
    """Load an image tokenizer from a folder of `save_pretrained`.

    Args:
        path: the folder; or a run, model or token folder that contains it.
        device: of the weights; CPU by default.
        dtype: precision of the convolutions; float32 by default.

    Raises:
        CogViewError: something is missing, damaged or of another version, or weights and configuration do not belong
            together.
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
        held_out = section_from_json(ReconstructionQuality, content, "held_out", folder / "config.json")
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


def lossless_dtype(tokenizer: ImageTokenizer) -> torch.dtype:
    """Return float16 if an image tokenizer's weights are already rounded to it, otherwise float32.

    Rounding would change the tokenizer that tokens, models and decoders were made with.
    """
    halves = {name: weight.half() for name, weight in inference_weights(tokenizer.autoencoder).items()}
    is_lossless = fingerprint_of_weights(tokenizer.config, halves) == tokenizer.fingerprint
    return torch.float16 if is_lossless else torch.float32
