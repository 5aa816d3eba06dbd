"""Captioning of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool

from cogview.decoding.config import SamplingConfig
from cogview.errors import UsageError
from cogview.generation.model import LoadedModel
from cogview.generation.options import CaptionOptions
from cogview.generation.pictures import Picture, codes_of
from cogview.numbers import real_number, whole_number
from cogview.text.tokenizer import TextTokenizer
from cogview.text.word_replacing import Language


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Caption of a picture.

    Args:
        text: the caption.
        caption_loss: CapLoss of picture and text, in nats per piece.
        score: log p of text and end token, divided by the number of pieces plus 1; beam search ranks by it.
        seed: of the sample; None from beam search.
    """

    text: str
    caption_loss: float
    score: float
    seed: int | None = None


class Captioner:
    """Writes captions of pictures.

    Args:
        model: with an adapter, or a whole transformer, for captioning.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def caption(
        self,
        images: Picture | Sequence[Picture],
        num_captions: int = 1,
        num_beams: int = 4,
        seed: int = 0,
        options: CaptionOptions = CaptionOptions(),  # noqa: B008 - frozen
    ) -> list[list[Caption]]:
        """Write captions of pictures.

        Args:
            images: pictures, paths or codes; other sizes are scaled, and the middle square is cut out.
            num_captions: captions of each picture.
            num_beams: width of the beam search with temperature 0, at least `num_captions`; 1 is greedy.
            seed: of the first sample of each picture; the next has the next.
            options: how to write.

        Returns:
            A list for each picture: captions of a beam search best first, samples in the order of their seeds.

        Raises:
            UsageError: an impossible number, no picture, or a picture that is refused.
            UnusableImage: a picture file cannot be read.
        """
        for name, value in (("num_captions", num_captions), ("num_beams", num_beams), ("seed", seed)):
            whole_number(name, value)
        if num_captions < 1 or num_beams < 1:
            raise UsageError(
                f"num_captions and num_beams must be at least 1, got {num_captions} and {num_beams}"
            )
        if seed < 0:
            raise UsageError(f"seed must not be negative, got {seed}")
        config = SamplingConfig(
            temperature=real_number("temperature", options.temperature),
            top_k=options.top_k,
            top_p=real_number("top_p", options.top_p),
        )
        caption_model, tokenizer = self._model.caption_model(options.captioner), self._model.text_tokenizer
        allowed = None if options.language is None else _pieces_of(tokenizer, options.language)
        codes = codes_of(self._model, images, caption_model.template, options.strict)
        width = max(num_beams, num_captions)
        seeds: Sequence[int | None] = range(seed, seed + num_captions)
        if config.temperature or width == 1:
            captions = caption_model.sample(
                codes, range(seed, seed + num_captions), config, options.max_pieces, allowed
            )
        else:
            captions = caption_model.beam_search(
                codes,
                width,
                options.max_pieces,
                real_number("length_penalty", options.length_penalty),
                allowed,
            )
        if not config.temperature:
            seeds = [None] * num_captions
        return [
            [
                Caption(
                    text=tokenizer.decode(text.pieces),
                    caption_loss=text.caption_loss,
                    score=text.score(),
                    seed=text_seed,
                )
                for text, text_seed in zip(texts, seeds, strict=False)
            ]
            for texts in captions
        ]


def _pieces_of(tokenizer: TextTokenizer, language: str) -> Bool[np.ndarray, "n"]:
    """Return a mask of the pieces that are used in a language.

    Raises:
        UsageError: the language is unknown, or the text tokenizer has no words of it.
    """
    allowed = {name: tokenizer.writes(name) for name in get_args(Language)}
    if language not in allowed:
        raise UsageError(f"language must be one of {', '.join(allowed)}, got {language!r}")
    others = [pieces for name, pieces in allowed.items() if name != language]
    if not (allowed[language] & ~np.logical_or.reduce(others)).any():
        raise UsageError(f"this model's text tokenizer has no words of the language {language!r}")
    return allowed[language]
