"""The pipeline: what users hold, from words to pictures in one call."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Unpack, get_args, overload

import torch
from jaxtyping import Int64
from torch import Tensor

from cogview.errors import UsageError
from cogview.generation.captioner import Caption, Captioner
from cogview.generation.drawer import Drawer
from cogview.generation.hub import push_to_hub
from cogview.generation.model import LoadedModel
from cogview.generation.one_colour import warn_of_one_colour
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
from cogview.generation.parts import PretrainedModel, TaskModel, TaskName
from cogview.generation.picture_events import CodesDrawn, GeneratedImage, PictureDone
from cogview.generation.picture_task import PictureTask
from cogview.generation.pictures import Picture
from cogview.generation.placement import resolve_device, resolve_dtype
from cogview.generation.pretrained import find_model_folder, load_pretrained, save_pretrained
from cogview.generation.ranker import RankedImage, Ranker
from cogview.generation.request import check_request, check_texts
from cogview.generation.text_to_image import Progress
from cogview.generation.upscaler import MagnifiedImage, Upscaler
from cogview.image.tokenizer import ImageTokenizer
from cogview.sequence.template import TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.model import Transformer


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
            f"{type(self).__name__}({self.transformer.config.num_parameters:,} parameters, draws "
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
    def magnifier_names(self) -> list[str]:
        """The names of the adapters that magnify."""
        return self.model.parts.names_for("super-resolution")

    def add_adapter(self, path: str | Path, name: str) -> TaskModel:
        """Load an adapter, or a whole transformer for another task and the same tokenizers.

        Args:
            path: its folder, or that of the run which trained it.
            name: it can be asked for by; one of that name is replaced.

        Raises:
            UsageError: the name cannot be that of a folder.
            CogViewError: there is no adapter, it is incomplete, of another version, or not for this model.
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
            progress: called with the numbers of codes drawn and to be drawn, those of magnifying among them.
            options: those of `PictureOptions`: temperature, top_k, top_p, guidance, sampler, adapter, adapter_strength,
                strict, image, mask, captioner, upscale, magnifier, size_pixels, balance_words, keeps_pixels and
                rank_by.

        Returns:
            The candidates of the text in the order of their seeds, or of CapLoss, the best first, if they were ranked;
            for several texts, a list of such lists.

        Raises:
            UsageError: an empty text, an impossible number, or an unknown word that is refused.
        """
        texts = [text] if isinstance(text, str) else list(text)
        check_texts(texts)
        task = PictureTask.of(self.model, PictureOptions(**options), num_candidates, keep, seed)
        asked = task.asked(texts, range(seed, seed + num_candidates))
        num_done, num_all = 0, len(texts) * task.num_codes(num_candidates)
        drawn: list[dict[int, GeneratedImage]] = [{} for _ in texts]
        for event in task.stream(asked):
            if isinstance(event, PictureDone):
                drawn[event.text_index][event.place] = event.picture
            elif isinstance(event, CodesDrawn):
                num_done += event.num_codes
                if progress is not None:
                    progress(num_done, num_all)
        rows = [[row[place] for place in sorted(row)] for row in drawn]
        warn_of_one_colour(
            {row[0].text: [each.image for each in row] for row in rows}, task.codes.sampling.top_p
        )
        return rows[0] if isinstance(text, str) else rows

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

        No image tokenizer is needed. The arguments are those of `generate`, with the options of `CodeOptions`; words
        are not replaced, and `seed` may also be that of the first candidate of each text by itself.

        Raises:
            UsageError: an empty text or an impossible number.
        """
        texts = [text] if isinstance(text, str) else list(text)
        seeds = [seed] * len(texts) if isinstance(seed, int) else list(seed)
        check_texts(texts)
        check_request(num_candidates, None, min(seeds, default=0))
        if len(seeds) != len(texts):
            raise UsageError(
                f"there are {len(texts)} texts and {len(seeds)} seeds: give one for all, or one for each"
            )
        return self.drawer.draw(texts, num_candidates, seeds, CodeOptions(**options), progress)

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
    ) -> list[MagnifiedImage]:
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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a CogView model",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        dtype: torch.dtype | None = None,
    ) -> str:
        """Upload the model to the Hugging Face hub.

        Args:
            repo_id: `OWNER/NAME`; made if there is none.
            commit_message: of the upload.
            private: whether a repository that has to be made is private; the owner's default if None.
            token: of the account; the one that is logged in by default.
            branch: to upload to; the main one by default.
            create_pr: upload as a pull request instead.
            dtype: of the transformer's weights; as they are by default.

        Returns:
            The address of the commit.

        Raises:
            UsageError: as `save_pretrained` does.
        """
        return push_to_hub(
            self.model.parts,
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            dtype=dtype,
        )


def load(
    path_or_hub_id: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """Load a model.

    Args:
        path_or_hub_id: a model folder, the folder of a training run, `OWNER/NAME` on the Hugging Face hub (the only
            case in which the network is used), or None for the bundled model.
        device: "cpu", "cuda", "cuda:1", ...; a GPU if there is one by default.
        dtype: of the transformer's weights: float32, bfloat16 or float16, as torch's dtype or as a name. By default
            float32 on CPU and bfloat16 on a GPU that computes it. A model that is to be saved again should be loaded
            as float32, which holds every stored dtype exactly.

    Raises:
        UsageError: the device or the dtype is unknown or not to be had here.
        CogViewError: there is no such model, it is incomplete, of another version, or its parts do not belong
            together.
    """
    place = resolve_device(device)
    model = load_pretrained(find_model_folder(path_or_hub_id), place, resolve_dtype(dtype, place))
    return Pipeline(model)
