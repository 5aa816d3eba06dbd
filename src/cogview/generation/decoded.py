"""Codes to pixels, those of several pictures side by side: a picture has the same pixels on any number of threads.

Convolutions round differently with another number of threads. So a picture is decoded on one, whatever there are,
unless its decoder is so large that this would be waited for; several pictures are decoded at the same time.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor, nn

from cogview.decoding.threads import in_background, threads
from cogview.image.pixels import tensor_to_images
from cogview.image.tokenizer import ImageTokenizer

MAX_SINGLE = 20 * 10**9
"""Multiplications that one thread does in less than half a second."""


class PictureDecoder:
    """Decodes pictures one by one, with as many threads as the image tokenizer's work asks for.

    Args:
        image_tokenizer: decodes.
    """

    def __init__(self, image_tokenizer: ImageTokenizer) -> None:
        self._image_tokenizer = image_tokenizer
        self._works: dict[tuple[int | None, int, int], int] = {}

    def decode(self, codes: Int64[Tensor, "r s"], size_pixels: int | None = None) -> Image.Image:
        """Return the picture of some codes, decoded by itself: convolutions round differently in other batches.

        Args:
            codes: of any grid.
            size_pixels: of its longer side; as large as it was encoded, by the tokenizer's own decoder, by default.

        Raises:
            UsageError: no decoder draws that size, or a code is none of the tokenizer's.
        """
        num_threads = 1 if self._is_small(codes, size_pixels) else torch.get_num_threads()
        with threads(num_threads):
            return self._decoded(codes, size_pixels)

    def begin(
        self,
        codes: Int64[Tensor, "r s"],
        size_pixels: int | None,
        finish: Callable[[Image.Image], Image.Image],
    ) -> "Future[Image.Image]":
        """Begin to decode a picture, in the background if one thread is enough, and return where it will be.

        Args:
            codes: as for `decode`.
            size_pixels: as for `decode`.
            finish: what is done to the picture then.
        """
        if self._is_small(codes, size_pixels):
            return in_background(lambda: finish(self._decoded(codes, size_pixels)))
        done: Future[Image.Image] = Future()
        done.set_result(finish(self.decode(codes, size_pixels)))
        return done

    def _decoded(self, codes: Int64[Tensor, "r s"], size_pixels: int | None) -> Image.Image:
        tokenizer = self._image_tokenizer
        return tensor_to_images(tokenizer.decode(codes[None].to(tokenizer.device), size_pixels))[0]

    def _is_small(self, codes: Int64[Tensor, "r s"], size_pixels: int | None) -> bool:
        """Return whether a picture is decoded by one thread; on a GPU none is."""
        tokenizer = self._image_tokenizer
        if tokenizer.device.type != "cpu":
            return False
        rows, columns = codes.shape
        key = (size_pixels, rows, columns)
        if key not in self._works:
            # A few codes tell what many take: convolutions do the same at each place.
            side = max(rows, columns)
            small = torch.zeros(1, 2, 2, dtype=torch.int64)
            size = None if size_pixels is None else size_pixels * 2 // side
            self._works[key] = (
                _multiplications(tokenizer, lambda: tokenizer.decode(small, size)) * rows * columns // 4
            )
        return self._works[key] <= MAX_SINGLE


def _multiplications(tokenizer: ImageTokenizer, decode: Callable[[], Any]) -> int:
    """Return how many multiplications the convolutions and linear maps of a decoding do."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        places = output if not isinstance(module, nn.ConvTranspose2d) else inputs[0]
        channels = places.shape[-1] if isinstance(module, nn.Linear) else places.shape[1]
        total += module.weight.numel() * places.numel() // channels

    modules = [tokenizer.autoencoder, *tokenizer.decoders.values()]
    hooks = [
        each.register_forward_hook(count)
        for module in modules
        for each in module.modules()
        if isinstance(each, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    try:
        decode()
    finally:
        for hook in hooks:
            hook.remove()
    return total
