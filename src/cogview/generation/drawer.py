"""Texts to codes: what is asked for becomes requests of the engine."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.request import Request
from cogview.errors import UsageError
from cogview.generation.inpainting import DrawnPlaces, Inpainting
from cogview.generation.model import LoadedModel
from cogview.generation.options import CodeOptions
from cogview.generation.picture_events import GeneratedImage
from cogview.generation.pictures import Picture, as_image, codes_of
from cogview.generation.request import check_pieces, check_request, checked_texts
from cogview.generation.text_to_image import Progress, draw, picture_request
from cogview.numbers import real_number, whole_number
from cogview.sequence.template import Pieces, TextToImageTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeTask:
    """`CodeOptions` with all that they name at hand: nothing is read or looked up for a single candidate.

    Args:
        runner: of the transformer that draws.
        template: the order of its tokens.
        sampling: how.
        inpainting: the picture of which a part is drawn anew, if one is.
    """

    runner: Runner
    template: TextToImageTemplate
    sampling: SamplingConfig
    inpainting: Inpainting | None = None

    def request(self, pieces: Pieces, seed: int) -> Request:
        """Return what draws a candidate."""
        given = None if self.inpainting is None else self.inpainting.given(seed)
        return picture_request(self.runner, self.template, pieces, seed, self.sampling, given)


class Drawer:
    """Draws the codes of pictures.

    Args:
        model: draws, by itself or with an adapter.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def sampling(self, options: CodeOptions) -> SamplingConfig:
        """Return how to draw, with the model's own top-p and guidance where None are given.

        Raises:
            UsageError: an impossible number.
        """
        own = self._model.parts
        return SamplingConfig(
            guidance=real_number("guidance", own.guidance if options.guidance is None else options.guidance),
            temperature=real_number("temperature", options.temperature),
            top_k=options.top_k,
            top_p=real_number("top_p", own.top_p if options.top_p is None else options.top_p),
            sampler=options.sampler,
        )

    def task(self, options: CodeOptions) -> CodeTask:
        """Return what draws as asked.

        Raises:
            UsageError: an impossible number, an adapter that is not there, or a mask or picture that is refused.
            UnusableImage: a file is no picture that can be read.
        """
        sampling = self.sampling(options)
        if sampling.guidance != 1 and self._model.parts.guidance == 1:
            warnings.warn(
                f"guidance {sampling.guidance:g} compares with pictures drawn without a text, which this model does "
                "not say it was trained for (--dropped-texts); if they come out spoilt, leave it out",
                stacklevel=4,
            )
        runner, template = self._model.drawing(options.adapter, options.adapter_strength)
        return CodeTask(
            runner=runner,
            template=template,
            sampling=sampling,
            inpainting=None if options.image is None else self._inpainting(options, options.image, template),
        )

    def pieces_of(self, texts: Sequence[str], max_text_pieces: int) -> Mapping[str, Pieces]:
        """Return the pieces of texts that are drawn for; one that is too long is warned of.

        Raises:
            UsageError: a text holds nothing that the model reads.
        """
        pieces = {text: self._model.text_tokenizer.encode(text) for text in texts}
        check_pieces(pieces, max_text_pieces)
        return pieces

    def draw(
        self,
        texts: str | Sequence[str],
        num_candidates: int,
        seed: int | Sequence[int],
        options: CodeOptions,
        progress: Progress | None = None,
    ) -> Int64[Tensor, "n b r s"]:
        """Return codes of pictures, [texts, candidates, rows, columns].

        Args:
            texts: what to draw.
            num_candidates: pictures of each.
            seed: of the first candidate, of all texts or of each by itself; the next has the next.
            options: how.
            progress: called with the numbers of codes drawn and to be drawn.

        Raises:
            UsageError: something that is asked for is impossible or refused.
        """
        texts = checked_texts(texts)
        given = list(seed) if isinstance(seed, Sequence) else [seed] * len(texts)
        seeds = [whole_number("seed", each) for each in given]
        check_request(num_candidates, None, min(seeds, default=0))
        if len(seeds) != len(texts):
            raise UsageError(
                f"there are {len(texts)} texts and {len(seeds)} seeds: give one for all, or one for each"
            )
        task = self.task(options)
        read = self._model.reading(texts, options.adapter, options.strict)
        pieces = self.pieces_of([read[text] for text in texts], task.template.max_text_pieces)
        requests = [
            task.request(pieces[read[text]], each)
            for text, first in zip(texts, seeds, strict=True)
            for each in range(first, first + num_candidates)
        ]
        grid = task.template.grid_rows, task.template.grid_columns
        return draw(task.runner, requests, progress).view(len(texts), num_candidates, *grid)

    def _inpainting(
        self, options: CodeOptions, image: Picture | GeneratedImage, template: TextToImageTemplate
    ) -> Inpainting:
        """Read the picture of which a part is drawn anew, and the mask."""
        assert options.mask is not None, "an image has a mask"
        factor = 1 if isinstance(image, Tensor) else self._model.image_tokenizer.downsampling_factor
        places = DrawnPlaces(options.mask, (template.grid_rows, template.grid_columns), factor)
        held: Picture = image.codes if isinstance(image, GeneratedImage) else image
        picture: Image.Image | None = None
        if isinstance(image, GeneratedImage):
            picture = image.image
        elif not isinstance(image, Tensor):
            picture = as_image(image)
        if picture is not None:
            places.check_shape(picture.size)
        (codes,) = codes_of(self._model, held, template, options.strict)
        return Inpainting(codes=template.checked_codes(codes), places=places, image=picture)
