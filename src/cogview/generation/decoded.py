"""Codes to pixels, those of several pictures side by side: a picture has the same pixels on any number of threads.

Convolutions round differently with another number of threads. So a picture is decoded on one, whatever there are,
unless its decoder is so large that this would be waited for; several pictures are decoded at the same time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from threading import get_ident

from jaxtyping import Int64
from PIL import Image
from torch import Tensor, nn

from cogview.decoding.threads import side_by_side, threads
from cogview.image.pixels import tensor_to_images
from cogview.image.tokenizer import ImageTokenizer

MAX_SINGLE = 20 * 10**9
"""Multiplications that one thread does in less than half a second."""


class PictureDecoder:
    """Decodes pictures each by itself, with as many threads as the image tokenizer's work asks for.

    Args:
        image_tokenizer: decodes.
    """

    def __init__(self, image_tokenizer: ImageTokenizer) -> None:
        self._image_tokenizer = image_tokenizer
        self._is_small: dict[tuple[int | None, int, int], bool] = {}

    def decode(self, codes: Int64[Tensor, "r s"], size_pixels: int | None = None) -> Image.Image:
        """Return the picture of some codes, decoded by itself: convolutions round differently in other batches.

        Args:
            codes: of any grid.
            size_pixels: of its longer side; as large as it was encoded, by the tokenizer's own decoder, by default.

        Raises:
            UsageError: no decoder draws that size, or a code is none of the tokenizer's.
        """
        return next(self.decode_each(codes[None], size_pixels))

    def decode_each(
        self, codes: Int64[Tensor, "b r s"], size_pixels: int | None = None
    ) -> Iterator[Image.Image]:
        """Yield the picture of each, several at the same time where one thread is enough for a picture.

        Args:
            codes: of pictures.
            size_pixels: as for `decode`.

        Raises:
            UsageError: as `decode` does.
        """
        decodings = [partial(self._decoded, each, size_pixels) for each in codes]
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
                return chain([first], side_by_side(decodings[1:]))
        if decodings and self._is_small[key]:
            return side_by_side(decodings)
        return (decode() for decode in decodings)

    def _decoded(self, codes: Int64[Tensor, "r s"], size_pixels: int | None) -> Image.Image:
        tokenizer = self._image_tokenizer
        return tensor_to_images(tokenizer.decode(codes[None].to(tokenizer.device), size_pixels))[0]


class _TooMuch(Exception):
    """A picture takes so much work that one thread should not do it."""


@contextmanager
def _limited(tokenizer: ImageTokenizer, most: int) -> Iterator[None]:
    """Stop decodings of this thread whose convolutions and linear maps do too many multiplications; on a GPU, all.

    Raises:
        _TooMuch: they do.
    """
    if tokenizer.device.type != "cpu":
        raise _TooMuch
    total, owner = 0, get_ident()

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        if get_ident() != owner:
            return
        places = output if not isinstance(module, nn.ConvTranspose2d) else inputs[0]
        channels = places.shape[-1] if isinstance(module, nn.Linear) else places.shape[1]
        total += module.weight.numel() * places.numel() // channels
        if total > most:
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
