"""Drawing of codes: options become requests to the engine."""

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
from cogview.generation.inpainting import Inpainting, InpaintingMask
from cogview.generation.model import LoadedModel
from cogview.generation.options import CodeOptions
from cogview.generation.picture_events import GeneratedImage
from cogview.generation.pictures import Picture, as_image, codes_of
from cogview.generation.text_to_image import Progress, draw, picture_request
from cogview.generation.validation import check_pieces, check_request, checked_texts
from cogview.numbers import real_number, whole_number
from cogview.sequence.template import Pieces, TextToImageTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeTask:
    """`CodeOptions` checked and resolved against a model.

    Args:
        runner: of the transformer that draws.
        template: token order.
        sampling: how to sample codes.
        inpainting: picture to inpaint; None to draw whole pictures.
    """

    runner: Runner
    template: TextToImageTemplate
    sampling: SamplingConfig
    inpainting: Inpainting | None = None

    def request(self, pieces: Pieces, seed: int) -> Request:
        """Return the request for a candidate."""
        given = None if self.inpainting is None else self.inpainting.given(seed)
        return picture_request(self.runner, self.template, pieces, seed, self.sampling, given)


class Drawer:
    """Draws the codes of pictures.

    Args:
        model: to draw with, by itself or with an adapter.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def sampling(self, options: CodeOptions) -> SamplingConfig:
        """Return the sampling settings, with the model's own top-p and guidance for None.

        Raises:
            UsageError: a number is out of range.
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
        """Check options, and resolve the names in them.

        Raises:
            UsageError: an impossible number, an unknown adapter, or a mask or picture that is refused.
            UnusableImage: a picture file cannot be read.
        """
        sampling = self.sampling(options)
        if sampling.guidance != 1 and self._model.parts.guidance == 1:
            warnings.warn(
                f"guidance {sampling.guidance:g} needs a model that was trained with dropped texts (--dropped-texts); "
                "this one does not say that it was: if pictures look wrong, leave guidance out",
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
        """Tokenize texts; warn of those that are too long.

        Raises:
            UsageError: a text has no piece.
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
        """Return the codes of pictures, [texts, candidates, rows, columns].

        Args:
            texts: texts to draw.
            num_candidates: pictures of each text.
            seed: of the first candidate, one for all texts or one for each; the next candidate has the next.
            options: how to draw.
            progress: called with the number of codes so far, and of all.

        Raises:
            UsageError: an option is impossible or refused.
        """
        texts = checked_texts(texts)
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * len(texts)
        seeds = [whole_number("seed", each) for each in seeds]
        check_request(num_candidates, None, min(seeds, default=0))
        if len(seeds) != len(texts):
            raise UsageError(
                f"there are {len(texts)} texts and {len(seeds)} seeds: give one for all, or one for each"
            )
        task = self.task(options)
        spellings = self._model.known_spellings(texts, options.adapter, options.strict)
        pieces = self.pieces_of([spellings[text] for text in texts], task.template.max_text_pieces)
        requests = [
            task.request(pieces[spellings[text]], each)
            for text, first in zip(texts, seeds, strict=True)
            for each in range(first, first + num_candidates)
        ]
        grid = task.template.grid_rows, task.template.grid_columns
        return draw(task.runner, requests, progress).view(len(texts), num_candidates, *grid)

    def _inpainting(
        self, options: CodeOptions, image: Picture | GeneratedImage, template: TextToImageTemplate
    ) -> Inpainting:
        """Read the picture to inpaint, and its mask."""
        assert options.mask is not None, "an image has a mask"
        factor = 1 if isinstance(image, Tensor) else self._model.image_tokenizer.downsampling_factor
        mask = InpaintingMask(options.mask, (template.grid_rows, template.grid_columns), factor)
        source: Picture = image.codes if isinstance(image, GeneratedImage) else image
        picture: Image.Image | None = None
        if isinstance(image, GeneratedImage):
            picture = image.image
        elif not isinstance(image, Tensor):
            picture = as_image(image)
        if picture is not None:
            mask.check_shape(picture.size)
        (codes,) = codes_of(self._model, source, template, options.strict)
        return Inpainting(codes=template.checked_codes(codes), mask=mask, image=picture)
