"""What is told while pictures are drawn, and the pictures themselves."""

from dataclasses import dataclass, field

from jaxtyping import Int64
from PIL import Image
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedImage:
    """One picture that was drawn.

    Args:
        image: the picture, RGB.
        codes: what it was decoded from.
        seed: draws the same picture again, alone or in any company.
        text: what it was drawn for.
        caption_loss: how badly the text fits the picture, in nats per piece; None if the pictures were not ranked.
        fit_loss: how badly the given codes behind what was drawn fit it, in nats per code; None if the pictures were
            not ranked by it.
        drawn_text: what was drawn for the text, where `balance_words` replaced words in it or the model reads words in
            another spelling; None elsewhere.
        num_passes: of the transformer that its codes were drawn in.
    """

    image: Image.Image
    codes: Int64[Tensor, "r s"] = field(repr=False)
    seed: int
    text: str
    caption_loss: float | None = None
    fit_loss: float | None = None
    drawn_text: str | None = None
    num_passes: int = 0

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show."""
        return self.image._repr_png_()


@dataclass(frozen=True, kw_only=True, eq=False)
class CodesDrawn:
    """More codes are drawn, or read where they are given.

    Args:
        text_index: which of the texts it is for, from 0.
        seed: of the candidate.
        num_codes: that came.
    """

    text_index: int
    seed: int
    num_codes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PicturePreview:
    """A picture that is still drawn, or that was drawn and is still to be ranked or upscaled.

    Args:
        text_index: which of the texts it is for, from 0.
        text: that it is drawn for.
        seed: of the candidate.
        codes: as far as they are drawn, row by row; -1 where one is not.
        image: the picture, RGB, as large as it is encoded; light grey where nothing is drawn yet.
    """

    text_index: int
    text: str
    seed: int
    codes: Int64[Tensor, "r s"] = field(repr=False)
    image: Image.Image

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show."""
        return self.image._repr_png_()


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureDone:
    """A picture is done.

    Args:
        text_index: which of the texts it is for, from 0.
        place: among the pictures of its text in what `generate` returns.
        picture: itself.
    """

    text_index: int
    place: int
    picture: GeneratedImage

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show."""
        return self.picture._repr_png_()


PictureEvent = CodesDrawn | PicturePreview | PictureDone
