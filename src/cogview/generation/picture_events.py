"""Events of a drawing, and the pictures themselves."""

from dataclasses import dataclass, field

from jaxtyping import Int64
from PIL import Image
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedImage:
    """Generated picture.

    Args:
        image: the picture, RGB.
        codes: that the picture was decoded from.
        seed: draws the same picture again, in any batch.
        text: as the user wrote it.
        caption_loss: CapLoss of picture and text, in nats per piece; None if pictures were not ranked by it.
        fit_loss: loss of the given codes after the first drawn one, in nats per code; None if pictures were not ranked
            by it.
        drawn_text: what the model read, if it differs: words replaced by `balance_words`, or other spellings.
        num_passes: passes of the transformer that its codes took.
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
    """Codes were drawn, or read where they are given.

    Args:
        text_index: index of the text.
        seed: of the candidate.
        num_codes: new codes.
    """

    text_index: int
    seed: int
    num_codes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PicturePreview:
    """Preview of a picture that is being drawn, ranked or upscaled.

    Args:
        text_index: index of the text.
        text: as the user wrote it.
        seed: of the candidate.
        codes: so far, row by row; -1 where none is drawn yet.
        image: RGB, in the size that is encoded; light grey where nothing is drawn yet.
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
    """Finished picture.

    Args:
        text_index: index of the text.
        place: index among the pictures of its text in what `generate` returns.
        picture: the picture.
    """

    text_index: int
    place: int
    picture: GeneratedImage

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show."""
        return self.picture._repr_png_()


PictureEvent = CodesDrawn | PicturePreview | PictureDone
