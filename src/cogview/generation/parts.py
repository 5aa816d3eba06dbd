"""The parts that belong together: those of a model, and the transformers of further tasks that it can hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from cogview.errors import CogViewError, UsageError
from cogview.files import dataclass_from_json
from cogview.generation.config import TOP_P
from cogview.generation.weights import fingerprint_of_transformer, read_weights
from cogview.image.tokenizer import ImageTokenizer
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import regions_for

MODEL_FORMAT = "cogview"

TaskName = Literal["text-to-image", "style", "captioning", "super-resolution"]

Template = TypeVar("Template")


def fields_of(template: Any) -> dict[str, Any]:
    """Return what a template is, as plain data, but its vocabulary, which is the model's."""
    return {name: value for name, value in asdict(template).items() if name != "vocabulary"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskModel:
    """A transformer to run for a task: a model's own with an adapter, or a whole other one for the same tokenizers.

    Args:
        task: what it does.
        transformer: an `AdaptedTransformer` of the model's, or another transformer.
        template: the sequence that it learnt: the fields of the task's template, but the vocabulary.
        licence: of the weights, if it is known.
        card: its own card in Markdown; an empty one is replaced by the bare facts when saved.
    """

    task: TaskName
    transformer: Transformer
    template: Mapping[str, Any]
    licence: str = ""
    card: str = ""

    def template_of(self, cls: type[Template], vocabulary: Vocabulary) -> Template:
        """Return the template as what it is.

        Args:
            cls: the class of this task's templates.
            vocabulary: of the model.

        Raises:
            CogViewError: it is no template of this kind, or has more positions than the transformer.
        """
        try:
            template = dataclass_from_json(cls, self.template, vocabulary=vocabulary)
        except (TypeError, UsageError) as error:
            raise CogViewError(
                f"The template for {self.task} is not valid ({error}): export it again."
            ) from error
        wanted, got = getattr(template, "num_positions", 0), self.transformer.config.num_positions
        if wanted > got:
            raise CogViewError(
                f"The template for {self.task} wants {wanted} positions, got {got}: export it again."
            )
        return template


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The parts that belong together: what a model folder holds.

    Args:
        transformer: writes codes after pieces.
        template: the sequence that it learnt.
        text_tokenizer: words to pieces; None if only the transformer is at hand.
        image_tokenizer: codes to pixels; None likewise.
        card: the model card in Markdown; an empty one is replaced by the bare facts when saved.
        samples: the PNG that the card shows; empty if there is none.
        guidance: what to draw with unless told otherwise; other than 1 only for models that were trained with some
            texts dropped.
        top_p: what to draw with unless told otherwise.
        rounded_to: the dtype for which the transformer's weights lost digits when they were loaded; None if they
            were not rounded.
        source: the file that the weights were loaded from, if they were.
        adapters: transformers for further tasks by name; more may be put here.

    Raises:
        CogViewError: the parts do not fit together.
    """

    transformer: Transformer
    template: TextToImageTemplate
    text_tokenizer: TextTokenizer | None
    image_tokenizer: ImageTokenizer | None
    card: str = ""
    samples: bytes = b""
    guidance: float = 1.0
    top_p: float = TOP_P
    rounded_to: torch.dtype | None = None
    source: Path | None = None
    adapters: dict[str, TaskModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vocabulary, config = self.template.vocabulary, self.transformer.config
        for what, got, wanted in (
            (
                "image codes",
                self.image_tokenizer and self.image_tokenizer.num_codes,
                vocabulary.num_image_codes,
            ),
            (
                "text pieces",
                self.text_tokenizer and self.text_tokenizer.num_pieces,
                vocabulary.num_text_pieces,
            ),
            ("rows of the embedding", config.vocabulary_size, vocabulary.size),
        ):
            if got is not None and got != wanted:
                raise CogViewError(
                    f"The parts of the model do not fit together: the vocabulary wants {wanted} {what}, got {got}."
                )
        if config.attention_pattern == "three_region":
            wanted_regions = regions_for(self.template, config.three_region)
            if config.three_region != wanted_regions:
                raise CogViewError(
                    f"The parts of the model do not fit together: the template wants {wanted_regions}, got "
                    f"{config.three_region}."
                )
        if config.num_positions < self.template.num_positions:
            raise CogViewError(
                f"The parts of the model do not fit together: the template wants {self.template.num_positions} "
                f"positions, got {config.num_positions}."
            )

    @property
    def text_fingerprint(self) -> str | None:
        """Of the text tokenizer, if there is one."""
        return self.text_tokenizer.fingerprint if self.text_tokenizer else None

    @property
    def image_fingerprint(self) -> str | None:
        """Of the image tokenizer, if there is one."""
        return self.image_tokenizer.fingerprint if self.image_tokenizer else None

    @cached_property
    def fingerprint(self) -> str:
        """Of the transformer's weights, as they were before they were rounded; adapters are made for one."""
        if self.rounded_to is not None and self.source is not None:
            return fingerprint_of_transformer(read_weights(self.source))
        return fingerprint_of_transformer(self.transformer.state_dict())
