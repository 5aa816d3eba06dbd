"""The pipeline: text to pictures in one call."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Unpack, get_args, overload

import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.errors import UsageError
from cogview.generation.blank_pictures import is_blank, warn_of_blank_pictures
from cogview.generation.captioner import Caption, Captioner
from cogview.generation.drawer import Drawer
from cogview.generation.model import LoadedModel
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
from cogview.generation.text_to_image import Progress
from cogview.generation.upscaler import UpscaledImage, Upscaler
from cogview.generation.validation import checked_texts
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
    """A model that draws pictures from text, with its adapters.

    The first call of `generate` prepares the weights: after changing them, make a new pipeline.

    Args:
        parts: of the model.

    Attributes:
        model: model in memory, with its adapters.
        drawer: draws the codes of pictures.
        captioner: writes captions.
        ranker: scores texts against pictures.
        upscaler: draws pictures again, larger.
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
        """Maps tokens and positions, both [b t], to logits [b t v]."""
        return self.model.transformer

    @property
    def template(self) -> TextToImageTemplate:
        """Token order."""
        return self.model.template

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Maps text to pieces; raises `CogViewError` if the model has none."""
        return self.model.text_tokenizer

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """Maps pixels to codes and back; raises `CogViewError` if the model has none."""
        return self.model.image_tokenizer

    @property
    def fingerprint(self) -> str:
        """Hash of the transformer's weights."""
        return self.model.parts.fingerprint

    @property
    def guidance(self) -> float:
        """Default guidance of `generate`."""
        return self.model.parts.guidance

    @property
    def top_p(self) -> float:
        """Default top-p of `generate`."""
        return self.model.parts.top_p

    @property
    def size_pixels(self) -> int:
        """Default size of `generate`: the longer side of its pictures."""
        return self.upscaler.size_pixels

    @property
    def card(self) -> str:
        """Model card in Markdown."""
        return self.model.parts.card

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the transformer's weights."""
        return self.model.dtype

    @property
    def adapters(self) -> MappingProxyType[str, TaskModel]:
        """Adapters by name, each read when it is first used."""
        return self.model.adapters

    @property
    def captioner_names(self) -> list[str]:
        """Names of the adapters that caption."""
        return self.model.parts.names_for("captioning")

    @property
    def upscaler_names(self) -> list[str]:
        """Names of the adapters that upscale."""
        return self.model.parts.names_for("super-resolution")

    def add_adapter(self, path: str | Path, name: str) -> TaskModel:
        """Load an adapter from its folder, or from the folder of its run.

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
        """Draw pictures for one or more texts.

        Candidate i of every text has the seed `seed + i`; that seed with `num_candidates=1` draws the same picture
        again.

        Args:
            text: one or more texts; a text that is too long is cut, with a warning.
            num_candidates: pictures of each text.
            keep: number of pictures to return, the best by CapLoss, which needs a captioner. If None, return all,
                unranked.
            seed: of the first candidate; not negative.
            progress: called with the number of codes so far, and of all, including those of upscaling.
            on_preview: called with previews of unfinished pictures; see `stream`.
            options: those of `PictureOptions`: temperature, top_k, top_p, guidance, sampler, adapter, adapter_strength,
                strict, image, mask, captioner, upscale, upscaler, size_pixels, balance_words, keeps_pixels and
                rank_by.

        Returns:
            The candidates of the text by seed, or best first if ranked; for several texts, a list of such lists.

        Raises:
            UsageError: an empty text, an impossible number, or an unknown word with `strict`.
        """
        previews = None if on_preview is None else PreviewOptions()
        task, events = self._begin(text, num_candidates, keep, seed, progress, previews, options)
        pictures: dict[int, dict[int, GeneratedImage]] = {}
        with closing(events):
            for event in events:
                if isinstance(event, PictureDone):
                    pictures.setdefault(event.text_index, {})[event.place] = event.picture
                elif on_preview is not None:
                    on_preview(event)
        rows = [[row[place] for place in sorted(row)] for _, row in sorted(pictures.items())]
        blank = [row[0].text for row in rows if all(is_blank(each.image) for each in row)]
        warn_of_blank_pictures(blank, task.codes.sampling.top_p)
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
        """Draw as `generate` does, and yield previews and finished pictures as they come.

        Finished pictures are those of `generate`, in the order in which they are done. Arguments are checked at once;
        drawing starts with the first `next`, and stops with `close()` or when a `for` loop is left.

        Args:
            text: as for `generate`, as are `num_candidates`, `keep`, `seed`, `progress` and the options.
            num_candidates: pictures of each text.
            keep: number of pictures to yield, the best.
            seed: of the first candidate.
            progress: called with the number of codes so far, and of all.
            previews: how often to yield previews; None for finished pictures alone.
            options: those of `PictureOptions`.

        Raises:
            UsageError: as `generate` does.
        """
        return self._begin(text, num_candidates, keep, seed, progress, previews, options)[1]

    def _begin(
        self,
        text: str | Sequence[str],
        num_candidates: int,
        keep: int | None,
        seed: int,
        progress: Progress | None,
        previews: PreviewOptions | None,
        options: PictureArguments,
    ) -> tuple[PictureTask, Generator[PicturePreview | PictureDone, None, None]]:
        """Check arguments, and return the task with the generator that draws."""
        texts = checked_texts(text)
        num_candidates = whole_number("num_candidates", num_candidates)
        keep, seed = None if keep is None else whole_number("keep", keep), whole_number("seed", seed)
        if not isinstance(previews, PreviewOptions | None):
            raise UsageError(f"previews must be PreviewOptions or None, got {previews!r}")
        task = PictureTask.of(self.model, PictureOptions(**options), num_candidates, keep, seed)
        prompts = task.prompts(texts, range(seed, seed + num_candidates))

        num_codes = len(texts) * task.num_codes(num_candidates)
        return task, drawn_pictures(task, prompts, num_codes, progress, previews)

    def generate_codes(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        seed: int | Sequence[int] = 0,
        *,
        progress: Progress | None = None,
        **options: Unpack[CodeArguments],
    ) -> Int64[Tensor, "n b r s"]:
        """Return the codes of the pictures that `generate` draws, [texts, candidates, rows, columns].

        Needs no image tokenizer. Arguments and errors are those of `generate`, with the options of `CodeOptions`; words
        are not replaced, and `seed` may be one for each text.
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
        """Write captions, a list for each picture.

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
        """Compute CapLoss of pictures and texts, in nats per piece: the lower, the better the fit.

        Arguments and errors are those of `Ranker.caption_loss`.
        """
        return self.ranker.caption_loss(images, texts, captioner, strict)

    def rank(
        self, text: str, images: Sequence[Picture], captioner: str | None = None, strict: bool = False
    ) -> list[RankedImage]:
        """Return pictures ordered by how well they fit a text, best first.

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
        """Draw pictures again at two or four times the size that the model encodes.

        Arguments and errors are those of `Upscaler.upscale`, with the options of `UpscaleOptions`.
        """
        return self.upscaler.upscale(images, texts, factor, seed, UpscaleOptions(**options), progress)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a model folder for `cogview.load`, whole or not at all.

        Args:
            folder: created; replaced if it is a model folder.
            dtype: of the transformer's weights on disk, for instance `torch.float16`; unchanged by default.

        Raises:
            CogViewError: the folder holds something other than a model.
            UsageError: the weights were rounded on loading (see `cogview.load`), and `dtype` does not ask for the
                rounded ones.
        """
        save_pretrained(self.model.parts, Path(folder), dtype)

    def push_to_hub(self, repo_id: str, **options: Unpack[HubArguments]) -> str:
        """Upload the model to the Hugging Face hub, and return the URL of the commit.

        Args:
            repo_id: `OWNER/NAME`; created if it does not exist.
            options: those of `HubArguments`: commit_message, private, token, branch, create_pr and dtype.

        Raises:
            UsageError: as `save_pretrained` does.
        """
        return push_to_hub(self.model.parts, repo_id, **options)
