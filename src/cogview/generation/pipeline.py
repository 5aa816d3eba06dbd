"""The pipeline: what users hold, from words to pictures in one call."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Unpack, get_args, overload

import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.errors import UsageError
from cogview.generation.captioner import Caption, Captioner
from cogview.generation.drawer import Drawer
from cogview.generation.model import LoadedModel
from cogview.generation.one_colour import is_one_coloured, warn_of_one_colour
from cogview.generation.options import (
    CaptionArguments,
    CaptionOptions,
    CodeArguments,
    CodeOptions,
    PictureArguments,
    PictureOptions,
    UpscaleArguments,
    UpscaleOptions,
)
from cogview.generation.picture_events import GeneratedImage, PictureDone, PicturePreview
from cogview.generation.picture_stream import drawn_pictures
from cogview.generation.picture_task import PictureTask
from cogview.generation.pictures import Picture
from cogview.generation.previews import PreviewOptions
from cogview.generation.ranker import RankedImage, Ranker
from cogview.generation.request import checked_texts
from cogview.generation.text_to_image import Progress
from cogview.generation.upscaler import UpscaledImage, Upscaler
from cogview.image.tokenizer import ImageTokenizer
from cogview.models.config import TaskName
from cogview.models.folder import save_pretrained
from cogview.models.hub import HubArguments, push_to_hub
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.numbers import whole_number
from cogview.sequence.template import TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.model import Transformer

OnPreview = Callable[[PicturePreview], None]


class Pipeline:
    """A model that draws pictures for texts, and what else it can do with its adapters.

    The weights are prepared for drawing once, by the first call of `generate`: after changing them, make a new one.

    Args:
        parts: of the model.

    Attributes:
        model: the model in memory, with its adapters.
        drawer: draws the codes of pictures.
        captioner: writes captions.
        ranker: says how well texts fit pictures.
        upscaler: draws pictures larger.
    """

    def __init__(self, parts: PretrainedModel) -> None:
        self.model = LoadedModel(parts)
        self.drawer = Drawer(self.model)
        self.captioner = Captioner(self.model)
        self.ranker = Ranker(self.model)
        self.upscaler = Upscaler(self.model)

    def __repr__(self) -> str:
        template, adapters = self.template, ", ".join(self.model.parts.names_for(*get_args(TaskName)))
        return (
            f"{type(self).__name__}({self.model.parts.config.num_parameters:,} parameters, draws "
            f"{template.grid_rows} x {template.grid_columns} codes, on {self.device} in "
            f"{str(self.dtype).removeprefix('torch.')}, adapters: {adapters or 'none'})"
        )

    @property
    def transformer(self) -> Transformer:
        """Tokens and positions, both [b t], to logits [b t v]."""
        return self.model.transformer

    @property
    def template(self) -> TextToImageTemplate:
        """The order of the tokens."""
        return self.model.template

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Words to pieces; `CogViewError` if the model was converted without."""
        return self.model.text_tokenizer

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """Codes to pixels and back; `CogViewError` if the model was converted without."""
        return self.model.image_tokenizer

    @property
    def fingerprint(self) -> str:
        """Of the transformer's weights: equal means equal."""
        return self.model.parts.fingerprint

    @property
    def guidance(self) -> float:
        """What `generate` draws with unless told otherwise."""
        return self.model.parts.guidance

    @property
    def top_p(self) -> float:
        """What `generate` draws with unless told otherwise."""
        return self.model.parts.top_p

    @property
    def size_pixels(self) -> int:
        """The longer side of the pictures that `generate` draws unless told otherwise."""
        return self.upscaler.size_pixels

    @property
    def card(self) -> str:
        """The model card in Markdown."""
        return self.model.parts.card

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer's weights."""
        return self.model.dtype

    @property
    def adapters(self) -> MappingProxyType[str, TaskModel]:
        """What the model can do beside its own task, by name; each is read when it is first asked for."""
        return self.model.adapters

    @property
    def captioner_names(self) -> list[str]:
        """The names of the adapters that caption."""
        return self.model.parts.names_for("captioning")

    @property
    def upscaler_names(self) -> list[str]:
        """The names of the adapters that upscale."""
        return self.model.parts.names_for("super-resolution")

    def add_adapter(self, path: str | Path, name: str) -> TaskModel:
        """Load an adapter from its folder, or from that of its run, to be asked for by a name.

        Arguments and errors are those of `LoadedModel.add_adapter`.
        """
        return self.model.add_adapter(path, name)

    @overload
    def generate(
        self,
        text: str,
        num_candidates: int = ...,
        keep: int | None = ...,
        seed: int = ...,
        *,
        progress: Progress | None = ...,
        on_preview: OnPreview | None = ...,
        **options: Unpack[PictureArguments],
    ) -> list[GeneratedImage]: ...

    @overload
    def generate(
        self,
        text: Sequence[str],
        num_candidates: int = ...,
        keep: int | None = ...,
        seed: int = ...,
        *,
        progress: Progress | None = ...,
        on_preview: OnPreview | None = ...,
        **options: Unpack[PictureArguments],
    ) -> list[list[GeneratedImage]]: ...

    def generate(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        keep: int | None = None,
        seed: int = 0,
        *,
        progress: Progress | None = None,
        on_preview: OnPreview | None = None,
        **options: Unpack[PictureArguments],
    ) -> list[GeneratedImage] | list[list[GeneratedImage]]:
        """Draw pictures for one text or for several.

        Candidate i has the seed `seed + i`, for each text alike; with `num_candidates=1` that seed draws the same
        picture again.

        Args:
            text: a text, or several; one longer than the model reads loses its end, with a warning.
            num_candidates: pictures of each text.
            keep: how many of them to return, the best ones by CapLoss; all, without ranking them, if None. Needs a
                captioner, unless it is all of them.
            seed: of the first candidate; not negative.
            progress: called with the numbers of codes drawn and to be drawn, those of upscaling among them.
            on_preview: called with pictures that are still drawn, now and then; see `stream`.
            options: those of `PictureOptions`: temperature, top_k, top_p, guidance, sampler, adapter, adapter_strength,
                strict, image, mask, captioner, upscale, upscaler, size_pixels, balance_words, keeps_pixels and
                rank_by.

        Returns:
            The candidates of the text in the order of their seeds, or of CapLoss, the best first, if they were ranked;
            for several texts, a list of such lists.

        Raises:
            UsageError: an empty text, an impossible number, or an unknown word that is refused.
        """
        previews = None if on_preview is None else PreviewOptions()
        task, events = self._begun(text, num_candidates, keep, seed, progress, previews, options)
        drawn: dict[int, dict[int, GeneratedImage]] = {}
        with closing(events):
            for event in events:
                if isinstance(event, PictureDone):
                    drawn.setdefault(event.text_index, {})[event.place] = event.picture
                elif on_preview is not None:
                    on_preview(event)
        rows = [[row[place] for place in sorted(row)] for _, row in sorted(drawn.items())]
        plain = [row[0].text for row in rows if all(is_one_coloured(each.image) for each in row)]
        warn_of_one_colour(plain, task.codes.sampling.top_p)
        return rows[0] if isinstance(text, str) else rows

    def stream(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        keep: int | None = None,
        seed: int = 0,
        *,
        progress: Progress | None = None,
        previews: PreviewOptions | None = PreviewOptions(),  # noqa: B008 - frozen
        **options: Unpack[PictureArguments],
    ) -> Generator[PicturePreview | PictureDone, None, None]:
        """Draw as `generate` does, and yield pictures as they come: those that grow row by row, and finished ones.

        Finished pictures are those of `generate`, in the order in which they are done. What is asked for is checked at
        once; drawing begins with the first `next`, and `close()` stops it, as does the end of a `for` that breaks.

        Args:
            text: as for `generate`, as are `num_candidates`, `keep`, `seed`, `progress` and the options.
            num_candidates: pictures of each text.
            keep: how many of them to yield, the best.
            seed: of the first candidate.
            progress: called with the numbers of codes drawn and to be drawn.
            previews: how often growing pictures are shown; None for finished ones alone.
            options: those of `PictureOptions`.

        Raises:
            UsageError: as `generate` does.
        """
        return self._begun(text, num_candidates, keep, seed, progress, previews, options)[1]

    def _begun(
        self,
        text: str | Sequence[str],
        num_candidates: int,
        keep: int | None,
        seed: int,
        progress: Progress | None,
        previews: PreviewOptions | None,
        options: PictureArguments,
    ) -> tuple[PictureTask, Generator[PicturePreview | PictureDone, None, None]]:
        """Return what was asked for, once it is checked, and what draws it."""
        texts = checked_texts(text)
        num_candidates = whole_number("num_candidates", num_candidates)
        keep, seed = None if keep is None else whole_number("keep", keep), whole_number("seed", seed)
        if not isinstance(previews, PreviewOptions | None):
            raise UsageError(f"previews must be PreviewOptions or None, got {previews!r}")
        task = PictureTask.of(self.model, PictureOptions(**options), num_candidates, keep, seed)
        asked = task.asked(texts, range(seed, seed + num_candidates))

        num_codes = len(texts) * task.num_codes(num_candidates)
        return task, drawn_pictures(task, asked, num_codes, progress, previews)

    def generate_codes(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        seed: int | Sequence[int] = 0,
        *,
        progress: Progress | None = None,
        **options: Unpack[CodeArguments],
    ) -> Int64[Tensor, "n b r s"]:
        """Return the codes of the pictures that `generate` would draw, [texts, candidates, rows, columns].

        No image tokenizer is needed. Arguments and errors are those of `generate`, with the options of `CodeOptions`;
        words are not replaced, and `seed` may also be that of the first candidate of each text by itself.
        """
        return self.drawer.draw(text, num_candidates, seed, CodeOptions(**options), progress)

    def caption(
        self,
        images: Picture | Sequence[Picture],
        num_captions: int = 1,
        num_beams: int = 4,
        *,
        seed: int = 0,
        **options: Unpack[CaptionArguments],
    ) -> list[list[Caption]]:
        """Write captions of pictures, a list for each.

        Arguments, result and errors are those of `Captioner.caption`, with the options of `CaptionOptions`.
        """
        return self.captioner.caption(images, num_captions, num_beams, seed, CaptionOptions(**options))

    def caption_loss(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        captioner: str | None = None,
        strict: bool = False,
    ) -> list[float]:
        """Return CapLoss of pictures and texts, in nats per piece: the lower, the better a text fits.

        Arguments and errors are those of `Ranker.caption_loss`.
        """
        return self.ranker.caption_loss(images, texts, captioner, strict)

    def rank(
        self, text: str, images: Sequence[Picture], captioner: str | None = None, strict: bool = False
    ) -> list[RankedImage]:
        """Return pictures in the order in which a text fits them, best first.

        Arguments and errors are those of `Ranker.rank`.
        """
        return self.ranker.rank(text, images, captioner, strict)

    def upscale(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        factor: int = 2,
        seed: int = 0,
        *,
        progress: Progress | None = None,
        **options: Unpack[UpscaleArguments],
    ) -> list[UpscaledImage]:
        """Draw pictures again at twice or four times the size that the model encodes.

        Arguments and errors are those of `Upscaler.upscale`, with the options of `UpscaleOptions`.
        """
        return self.upscaler.upscale(images, texts, factor, seed, UpscaleOptions(**options), progress)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the model as a folder that `cogview.load` reads, whole or not at all.

        Args:
            folder: made; a model folder of that name is replaced, anything else is left alone.
            dtype: of the transformer's weights on disk, for instance `torch.float16`; as they are by default.

        Raises:
            CogViewError: the folder holds something else than a model.
            UsageError: the weights were rounded when they were loaded (see `cogview.load`), and `dtype` does not ask
                for the rounded ones.
        """
        save_pretrained(self.model.parts, Path(folder), dtype)

    def push_to_hub(self, repo_id: str, **options: Unpack[HubArguments]) -> str:
        """Upload the model to the Hugging Face hub, and return the address of the commit.

        Args:
            repo_id: `OWNER/NAME`; made if there is none.
            options: those of `HubArguments`: commit_message, private, token, branch, create_pr and dtype.

        Raises:
            UsageError: as `save_pretrained` does.
        """
        return push_to_hub(self.model.parts, repo_id, **options)
