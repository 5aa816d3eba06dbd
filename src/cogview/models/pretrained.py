"""The parts that belong together: those of a model, and the transformers of further tasks that it can hold."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from cogview.decoding.config import TOP_P, Resources
from cogview.decoding.guess_table import GUESSES_FILE, GuessTable
from cogview.errors import CogViewError, UsageError
from cogview.image.tokenizer import ImageTokenizer
from cogview.models.config import TaskName
from cogview.models.weights import fingerprint_of_transformer
from cogview.plain_json import dataclass_from_json
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.config import TextCase
from cogview.text.known_words import KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.stored import StoredTransformer
from cogview.transformer.three_region import regions_for

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
        words: of the captions that it learnt, beside the model's; None if they are not known.
    """

    task: TaskName
    transformer: Transformer = field(repr=False)
    template: Mapping[str, Any]
    licence: str = ""
    card: str = field(default="", repr=False)
    words: KnownWords | None = field(default=None, repr=False)

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


if TYPE_CHECKING:
    _AdaptersByName = MutableMapping[str, TaskModel]
else:
    _AdaptersByName = MutableMapping  # a check of its items at run time would read them


class Adapters(_AdaptersByName):
    """A model's adapters by name; one that lies in a file is read when it is first asked for.

    Listing them reads them all, so that a broken one is told of then.

    Args:
        held: those in memory.
    """

    def __init__(self, held: Mapping[str, TaskModel] = MappingProxyType({})) -> None:
        self._held: dict[str, TaskModel | _Unread] = dict(held)
        self._lock = RLock()

    def add_unread(self, name: str, task: TaskName, read: Callable[[], TaskModel]) -> None:
        """Add an adapter of which only the task is known, and what reads it."""
        self._held[name] = _Unread(task, read)

    def names_for(self, *tasks: TaskName) -> list[str]:
        """Return the names of those for some tasks, without reading any."""
        return [name for name, each in self._held.items() if each.task in tasks]

    def __getitem__(self, name: str) -> TaskModel:
        with self._lock:
            found = self._held[name]
            if isinstance(found, _Unread):
                found = self._held[name] = found.read()
            return found

    def __setitem__(self, name: str, adapter: TaskModel) -> None:
        with self._lock:
            self._held[name] = adapter

    def __delitem__(self, name: str) -> None:
        with self._lock:
            del self._held[name]

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        names = list(self._held)
        for name in names:
            _ = self[name]
        return iter(names)

    def __len__(self) -> int:
        return len(self._held)

    def __bool__(self) -> bool:
        return bool(self._held)


class _Unread(NamedTuple):
    """An adapter in a file: its task, and what reads it."""

    task: TaskName
    read: Callable[[], TaskModel]


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The parts that belong together: what a model folder holds.

    Args:
        held: the transformer, which writes codes after pieces, or what reads it from its file when it is asked for.
        template: the sequence that it learnt.
        text_tokenizer: words to pieces; None if only the transformer is at hand.
        image_tokenizer: codes to pixels; None likewise.
        card: the model card in Markdown; an empty one is replaced by the bare facts when saved.
        samples: the PNG that the card shows; empty if there is none.
        guidance: what to draw with unless told otherwise; other than 1 only for models that were trained with some
            texts dropped.
        top_p: what to draw with unless told otherwise.
        words: of the captions that it learnt; None if they are not known, and then no word is called unknown.
        text_case: how it reads capitals; in their usual spelling only words that are known can be read.
        guess_table: what usually follows which codes in the pictures that it learnt; drawing takes longer without.
        rounded_from: the fingerprint of the weights that these were rounded from before they were stored, if they were.
        adapters: transformers for further tasks by name; more may be put here.
        resources: what drawing with it may take of the machine.

    Raises:
        CogViewError: the parts do not fit together.
    """

    held: Transformer | StoredTransformer = field(repr=False)
    template: TextToImageTemplate
    text_tokenizer: TextTokenizer | None
    image_tokenizer: ImageTokenizer | None
    card: str = field(default="", repr=False)
    samples: bytes = field(default=b"", repr=False)
    guidance: float = 1.0
    top_p: float = TOP_P
    words: KnownWords | None = field(default=None, repr=False)
    text_case: TextCase = "as_written"
    guess_table: GuessTable | None = field(default=None, repr=False)
    rounded_from: str | None = None
    adapters: Adapters | dict[str, TaskModel] = field(default_factory=Adapters)
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        if not isinstance(self.adapters, Adapters):
            object.__setattr__(self, "adapters", Adapters(self.adapters))
        vocabulary, config = self.template.vocabulary, self.config
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
        if self.guess_table is not None and self.guess_table.num_codes > vocabulary.num_image_codes:
            raise CogViewError(
                f"The parts of the model do not fit together: the table of guesses has {self.guess_table.num_codes} "
                f"codes, wanted {vocabulary.num_image_codes}: export the model again, or delete {GUESSES_FILE}."
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

    def names_for(self, *tasks: TaskName) -> list[str]:
        """Return the names of the adapters for some tasks, without reading any."""
        assert isinstance(self.adapters, Adapters)
        return self.adapters.names_for(*tasks)

    @property
    def text_fingerprint(self) -> str | None:
        """Of the text tokenizer, if there is one."""
        return self.text_tokenizer.fingerprint if self.text_tokenizer else None

    @property
    def image_fingerprint(self) -> str | None:
        """Of the image tokenizer, if there is one."""
        return self.image_tokenizer.fingerprint if self.image_tokenizer else None

    @property
    def transformer(self) -> Transformer:
        """The transformer as a module, which is read from its file when it is first asked for."""
        return self.held if isinstance(self.held, Transformer) else self.held.module

    @property
    def latest(self) -> Transformer | StoredTransformer:
        """The module if it is in memory, where it may have been changed, and else what reads it."""
        return self.held if isinstance(self.held, Transformer) else self.held.latest

    @property
    def described(self) -> Transformer:
        """The transformer's shape; of its tensors nothing may be asked."""
        return self.held if isinstance(self.held, Transformer) else self.held.described

    @property
    def prepared_dtype(self) -> torch.dtype:
        """What the linear maps are prepared in for decoding."""
        return self.dtype if isinstance(self.held, Transformer) else self.held.prepared_dtype

    @property
    def config(self) -> TransformerConfig:
        """Of the transformer."""
        return self.held.config

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.held.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer as a module."""
        return (
            self.held.embedding.tokens.weight.dtype if isinstance(self.held, Transformer) else self.held.dtype
        )

    @property
    def rounded_to(self) -> torch.dtype | None:
        """The dtype for which the weights lost digits when they were loaded; None if they were not rounded."""
        return None if isinstance(self.held, Transformer) else self.held.rounded_to

    @cached_property
    def fingerprint(self) -> str:
        """Of the transformer's weights, as they were before they were rounded; adapters are made for one."""
        if self.rounded_from is not None:
            return self.rounded_from
        latest = self.latest
        if isinstance(latest, StoredTransformer):
            return fingerprint_of_transformer(latest.weights)
        if isinstance(self.held, StoredTransformer) and self.rounded_to is not None:
            return fingerprint_of_transformer(self.held.weights)
        return fingerprint_of_transformer(latest.state_dict())
