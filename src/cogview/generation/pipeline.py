"""The pipeline: what users hold, from words to pictures in one call."""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.generation.config import SamplingConfig
from cogview.generation.engine import Engine, Progress, Prompt
from cogview.generation.pretrained import PretrainedModel, find_model_folder, load_pretrained, save_pretrained
from cogview.generation.request import check_pieces, check_request, seeds_of_texts, texts_of_candidates
from cogview.image.pixels import tensor_to_images
from cogview.image.tokenizer import ImageTokenizer
from cogview.sequence.template import TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.model import Transformer


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedImage:
    """One picture that was drawn.

    Args:
        image: the picture, RGB.
        codes: what it was decoded from.
        seed: draws the same picture again, alone or in any company.
        text: what it was drawn for.
        caption_loss: how badly the text fits the picture, in nats per piece; None until ranking exists.
        drawn_text: what was drawn for the text, where `balance_words` replaced words in it; None elsewhere.
    """

    image: Image.Image
    codes: Int64[Tensor, "r s"]
    seed: int
    text: str
    caption_loss: float | None = None
    drawn_text: str | None = None


class Pipeline:
    """A model that draws pictures for texts.

    The weights are prepared for drawing once, by the first call of `generate`: after changing them, make a new one.

    Args:
        model: the parts.
    """

    def __init__(self, model: PretrainedModel) -> None:
        self._model = model

    @property
    def transformer(self) -> Transformer:
        """Tokens and positions, both [b t], to logits [b t v]."""
        return self._model.transformer

    @property
    def template(self) -> TextToImageTemplate:
        """The order of the tokens."""
        return self._model.template

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Words to pieces.

        Raises:
            CogViewError: the model was converted without.
        """
        if self._model.text_tokenizer is None:
            raise CogViewError(
                "this model has no text tokenizer, so it reads no words: put its SentencePiece file into its folder as "
                "text.model, or convert it with --text-tokenizer"
            )
        return self._model.text_tokenizer

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """Codes to pixels and back.

        Raises:
            CogViewError: the model was converted without.
        """
        if self._model.image_tokenizer is None:
            raise CogViewError(
                "this model has no image tokenizer, so it draws codes (generate_codes) but no pixels: put its folder "
                "into the model's as image_tokenizer, or convert it with --image-tokenizer"
            )
        return self._model.image_tokenizer

    @property
    def guidance(self) -> float:
        """What `generate` draws with unless told otherwise."""
        return self._model.guidance

    @property
    def card(self) -> str:
        """The model card in Markdown."""
        return self._model.card

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.transformer.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer's weights."""
        return self.transformer.embedding.tokens.weight.dtype

    @cached_property
    def _engine(self) -> Engine:
        """The engine, which prepares the weights when it is first needed."""
        return Engine(self.transformer, self.template.vocabulary.image_codes)

    @overload
    def generate(
        self,
        text: str,
        num_candidates: int = ...,
        keep: int | None = ...,
        seed: int = ...,
        temperature: float | int = ...,
        top_k: int | None = ...,
        top_p: float | int = ...,
        guidance: float | int | None = ...,
        progress: Progress | None = ...,
        balance_words: bool = ...,
    ) -> list[GeneratedImage]: ...

    @overload
    def generate(
        self,
        text: Sequence[str],
        num_candidates: int = ...,
        keep: int | None = ...,
        seed: int = ...,
        temperature: float | int = ...,
        top_k: int | None = ...,
        top_p: float | int = ...,
        guidance: float | int | None = ...,
        progress: Progress | None = ...,
        balance_words: bool = ...,
    ) -> list[list[GeneratedImage]]: ...

    def generate(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        keep: int | None = None,
        seed: int = 0,
        temperature: float | int = 1.0,
        top_k: int | None = None,
        top_p: float | int = 0.8,
        guidance: float | int | None = None,
        progress: Progress | None = None,
        balance_words: bool = False,
    ) -> list[GeneratedImage] | list[list[GeneratedImage]]:
        """Draw pictures for one text or for several.

        Candidate i has the seed `seed + i`, for each text alike; with `num_candidates=1` that seed draws the same
        picture again.

        Args:
            text: a text, or several; one longer than the model reads loses its end, with a warning.
            num_candidates: pictures of each text.
            keep: how many of them to return, the best ones; all if None. Ranking does not exist yet, so nothing
                less than all can be asked for.
            seed: of the first candidate; not negative.
            temperature: below 1 prefers probable codes, above 1 levels them; 0 always takes the most probable, so
                that all candidates are one picture.
            top_k: draw from the most probable codes only; from all if None.
            top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all.
            guidance: above 1, what the text says is followed more closely than it was learnt, with twice the rows to
                compute; for models that were trained with some texts dropped. The model's own by default.
            progress: called with the numbers of codes drawn and to be drawn.
            balance_words: give each word for people a gender and a skin tone, in turn from seed to seed; see
                `cogview.text.word_replacing`.

        Returns:
            The candidates of the text in the order of their seeds; for several texts, a list of such lists.

        Raises:
            UsageError: an empty text or an impossible number.
        """
        texts = [text] if isinstance(text, str) else list(text)
        check_request(texts, num_candidates, keep, seed)
        image_tokenizer = self.image_tokenizer  # found out before the codes are drawn, not after
        words = texts_of_candidates(texts, num_candidates, seed, balance_words)
        codes = self._draw(words, seed, temperature, top_k, top_p, guidance, progress)
        drawn = [
            [
                GeneratedImage(
                    # Decoded one by one: convolutions round differently in batches of another size.
                    image=tensor_to_images(image_tokenizer.decode(candidate[None]))[0],
                    codes=candidate,
                    seed=seed + number,
                    text=text_of_row,
                    drawn_text=drawn_text if drawn_text != text_of_row else None,
                )
                for number, (candidate, drawn_text) in enumerate(zip(candidates, row, strict=True))
            ]
            for text_of_row, candidates, row in zip(texts, codes, words, strict=True)
        ]
        return drawn[0] if isinstance(text, str) else drawn

    def generate_codes(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        seed: int = 0,
        temperature: float | int = 1.0,
        top_k: int | None = None,
        top_p: float | int = 0.8,
        guidance: float | int | None = None,
        progress: Progress | None = None,
    ) -> Int64[Tensor, "n b r s"]:
        """Return the codes of the pictures that `generate` would draw, [texts, candidates, rows, columns].

        No image tokenizer is needed. The arguments are those of `generate`, but words are not replaced.

        Raises:
            UsageError: an empty text or an impossible number.
        """
        texts = [text] if isinstance(text, str) else list(text)
        check_request(texts, num_candidates, None, seed)
        words = texts_of_candidates(texts, num_candidates, seed)
        return self._draw(words, seed, temperature, top_k, top_p, guidance, progress)

    def _draw(
        self,
        rows: Sequence[Sequence[str]],
        seed: int,
        temperature: float | int,
        top_k: int | None,
        top_p: float | int,
        guidance: float | int | None,
        progress: Progress | None,
    ) -> Int64[Tensor, "n b r s"]:
        """Draw the codes of a checked request's rows of candidates, for a method that the user called."""
        config = SamplingConfig(
            guidance=self.guidance if guidance is None else float(guidance),
            temperature=float(temperature),
            top_k=top_k,
            top_p=float(top_p),
        )
        if config.guidance != 1 and self.guidance == 1:
            warnings.warn(
                f"guidance {config.guidance:g} compares with pictures drawn without a text, which this model does not "
                "say it was trained for (--dropped-texts); if they come out spoilt, leave it out",
                stacklevel=3,
            )
        pieces = {text: self.text_tokenizer.encode(text) for row in rows for text in row}
        check_pieces(pieces, self.template.max_text_pieces)
        textless = Prompt.of(self.template, np.empty(0, dtype=np.int64), [seed])
        prompts = [
            Prompt.of(self.template, pieces[text], seeds, textless)
            for row in rows
            for text, seeds in seeds_of_texts(row, seed)
        ]
        codes = self._engine.generate(prompts, config, progress)
        return codes.view(len(rows), len(rows[0]), self.template.grid_rows, self.template.grid_columns)

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
        save_pretrained(self._model, Path(folder), dtype)

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
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder, dtype)  # first, so that a refusal leaves no empty repository
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
            )
        return str(commit.commit_url)


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


def resolve_device(device: torch.device | str | None) -> torch.device:
    """Return the device that was asked for, or the best one here.

    Raises:
        UsageError: it is unknown or not to be had here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        if place.type not in ("cpu", "cuda"):
            raise RuntimeError("only the CPU and CUDA are supported")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts that it has it
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"device {device!s} cannot be used here ({reason}); leave it out, or give cpu"
        ) from error
    return place


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """Return the dtype that was asked for, or the one that fits the device.

    Raises:
        UsageError: it isn't one of the three that the transformer computes in.
    """
    if dtype is None:
        is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if is_fast else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(dtype) if isinstance(dtype, str) else dtype
    if found not in known.values():
        raise UsageError(f"dtype {dtype} is not one of {', '.join(known)}")
    assert found is not None
    return found
