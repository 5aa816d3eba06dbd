"""Decoding of codes to pixels, the same for any number of threads.

Convolutions round differently with another number of threads. So each picture is decoded on one thread, and several at
a time, unless the decoder is so large that one thread would take too long.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from threading import get_ident

from jaxtyping import Int64
from PIL import Image
from torch import Tensor, nn

from cogview.decoding.threads import run_concurrently, threads
from cogview.image.pixels import tensor_to_images
from cogview.image.tokenizer import ImageTokenizer

MAX_SINGLE = 20 * 10**9
"""Multiplications that one thread does in less than half a second."""


class PictureDecoder:
    """Decodes each picture by itself, on one thread if that is fast enough.

    Args:
        image_tokenizer: has the decoders.
    """

    def __init__(self, image_tokenizer: ImageTokenizer) -> None:
        self._image_tokenizer = image_tokenizer
        self._is_small: dict[tuple[int | None, int, int], bool] = {}

    def decode(self, codes: Int64[Tensor, "r s"], size_pixels: int | None = None) -> Image.Image:
        """Decode a picture.

        Args:
            codes: of any grid.
            size_pixels: longer side of the picture; by default the size that the tokenizer encodes.

        Raises:
            UsageError: no decoder has that size, or a code is not in the codebook.
        """
        return next(self.decode_each(codes[None], size_pixels))

    def decode_each(
        self, codes: Int64[Tensor, "b r s"], size_pixels: int | None = None
    ) -> Iterator[Image.Image]:
        """Decode pictures each by itself, several at a time if one thread suffices for a picture.

        Args:
            codes: of the pictures.
            size_pixels: as for `decode`.

        Raises:
            UsageError: as `decode` does.
        """
        decodings = [partial(self._decode_one, each, size_pixels) for each in codes]
        rows, columns = codes.shape[1:]
        key = (size_pixels, rows, columns)
        if decodings and key not in self._is_small:
            try:
                with _limited(self._image_tokenizer, MAX_SINGLE), threads(1):
                    first = decodings[0]()
            except _TooMuch:
                self._is_small[key] = False
            else:
                self._is_small[key] = True
                return chain([first], run_concurrently(decodings[1:]))
        if decodings and self._is_small[key]:
            return run_concurrently(decodings)
        return (decode() for decode in decodings)

    def _decode_one(self, codes: Int64[Tensor, "r s"], size_pixels: int | None) -> Image.Image:
        tokenizer = self._image_tokenizer
        return tensor_to_images(tokenizer.decode(codes[None].to(tokenizer.device), size_pixels))[0]


class _TooMuch(Exception):
    """Decoding a picture is too much work for one thread."""


@contextmanager
def _limited(tokenizer: ImageTokenizer, max_multiplications: int) -> Iterator[None]:
    """Stop decoding in this thread after too many multiplications; on a GPU, at once.

    Raises:
        _TooMuch: there were too many.
    """
    if tokenizer.device.type != "cpu":
        raise _TooMuch
    total, owner = 0, get_ident()

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        if get_ident() != owner:
            return
        pixels = output if not isinstance(module, nn.ConvTranspose2d) else inputs[0]
        channels = pixels.shape[-1] if isinstance(module, nn.Linear) else pixels.shape[1]
        total += module.weight.numel() * pixels.numel() // channels
        if total > max_multiplications:
            raise _TooMuch

    hooks = [
        each.register_forward_hook(count)
        for module in (tokenizer.autoencoder, *tokenizer.decoders.values())
        for each in module.modules()
        if isinstance(each, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
