"""Models and their adapters in memory."""

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
from cogview.sequence.padded_text import PaddedTextTemplate, template_class_of
from cogview.sequence.right_text import RightTextTemplate, caption_class_of
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.config import TextCase
from cogview.text.known_words import KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.config import GridConfig, TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.stored import StoredTransformer
from cogview.transformer.three_region import regions_for

Template = TypeVar("Template")


def fields_of(template: Any) -> dict[str, Any]:
    """Return the fields of a template as plain data, without the vocabulary, which is the model's."""
    return {name: value for name, value in asdict(template).items() if name != "vocabulary"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskModel:
    """Transformer for a task: the model's own with an adapter, or another one with the same tokenizers.

    Args:
        task: of the transformer.
        transformer: an `AdaptedTransformer` of the model's, or another transformer.
        template: fields of the task's template, without the vocabulary.
        licence: of the weights, if known.
        card: in Markdown; if empty, a minimal one is saved.
        words: of the training captions, beside the model's; None if unknown.
    """

    task: TaskName
    transformer: Transformer = field(repr=False)
    template: Mapping[str, Any]
    licence: str = ""
    card: str = field(default="", repr=False)
    words: KnownWords | None = field(default=None, repr=False)

    def template_of(self, cls: type[Template], vocabulary: Vocabulary) -> Template:
        """Return the template as an object.

        Args:
            cls: class of the task's templates.
            vocabulary: of the model.

        Raises:
            CogViewError: the fields are invalid, need more positions than the transformer has, or another grid.
        """
        # Templates of text to image and of captions may be of a more special class.
        class_of = caption_class_of if self.task == "captioning" else template_class_of
        special = class_of(self.template)
        try:
            template = dataclass_from_json(
                special if issubclass(special, cls) else cls, self.template, vocabulary=vocabulary
            )
        except (TypeError, UsageError) as error:
            raise CogViewError(
                f"The template for {self.task} is not valid ({error}): export it again."
            ) from error
        wanted, got = getattr(template, "num_positions", 0), self.transformer.config.num_positions
        if wanted > got:
            raise CogViewError(
                f"The template for {self.task} wants {wanted} positions, got {got}: export it again."
            )
        if self.transformer.config.attention_pattern == "grid":
            _check_grid(self.transformer.config.grid, template)
        return template


if TYPE_CHECKING:
    _AdaptersByName = MutableMapping[str, TaskModel]
else:
    _AdaptersByName = MutableMapping  # checking its items at run time would read them


class Adapters(_AdaptersByName):
    """Adapters of a model by name, each read from its file on first use.

    Iterating reads all, so a broken one raises then.

    Args:
        adapters: adapters in memory.
    """

    def __init__(self, adapters: Mapping[str, TaskModel] = MappingProxyType({})) -> None:
        self._adapters: dict[str, TaskModel | _Unread] = dict(adapters)
        self._lock = RLock()

    def add_unread(self, name: str, task: TaskName, read: Callable[[], TaskModel]) -> None:
        """Add an adapter that `read` reads on first use."""
        self._adapters[name] = _Unread(task, read)

    def names_for(self, *tasks: TaskName) -> list[str]:
        """Return the names of the adapters for some tasks, without reading any."""
        return [name for name, each in self._adapters.items() if each.task in tasks]

    def __getitem__(self, name: str) -> TaskModel:
        with self._lock:
            adapter = self._adapters[name]
            if isinstance(adapter, _Unread):
                adapter = self._adapters[name] = adapter.read()
            return adapter

    def __setitem__(self, name: str, adapter: TaskModel) -> None:
        with self._lock:
            self._adapters[name] = adapter

    def __delitem__(self, name: str) -> None:
        with self._lock:
            del self._adapters[name]

    def __contains__(self, name: object) -> bool:
        return name in self._adapters

    def __iter__(self) -> Iterator[str]:
        names = list(self._adapters)
        for name in names:
            _ = self[name]
        return iter(names)

    def __len__(self) -> int:
        return len(self._adapters)

    def __bool__(self) -> bool:
        return bool(self._adapters)


class _Unread(NamedTuple):
    """Adapter in a file."""

    task: TaskName
    read: Callable[[], TaskModel]


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """Contents of a model folder.

    Args:
        source: the transformer, or the file that it is read from on first use.
        template: token order.
        text_tokenizer: None if the model has none.
        image_tokenizer: None if the model has none.
        card: in Markdown; if empty, a minimal one is saved.
        samples: PNG shown on the card; empty if none.
        guidance: default; other than 1 only for models trained with dropped texts.
        top_p: default.
        words: of the training captions; None if unknown, and then no word is reported as unknown.
        text_case: how the model reads capitals; "usual" needs known words.
        guess_table: speeds drawing up.
        rounded_from: fingerprint of the weights that these were rounded from before they were stored, if any.
        adapters: for further tasks, by name; may be added to.
        resources: limits of decoding.

    Raises:
        CogViewError: the parts do not fit together.
    """

    source: Transformer | StoredTransformer = field(repr=False)
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
    resources: Resources = field(default_factory=Resources, repr=False)

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
                f"The parts of the model do not fit together: the guess table has {self.guess_table.num_codes} "
                f"codes, wanted {vocabulary.num_image_codes}: export the model again, or delete {GUESSES_FILE}."
            )
        if config.attention_pattern == "three_region":
            wanted_regions = regions_for(self.template, config.three_region)
            if config.three_region != wanted_regions:
                raise CogViewError(
                    f"The parts of the model do not fit together: the template wants {wanted_regions}, got "
                    f"{config.three_region}."
                )
        if config.attention_pattern == "grid":
            _check_grid(config.grid, self.template)
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
        """Fingerprint of the text tokenizer, if there is one."""
        return self.text_tokenizer.fingerprint if self.text_tokenizer else None

    @property
    def image_fingerprint(self) -> str | None:
        """Fingerprint of the image tokenizer, if there is one."""
        return self.image_tokenizer.fingerprint if self.image_tokenizer else None

    @property
    def transformer(self) -> Transformer:
        """The transformer as a module, read on first use."""
        return self.source if isinstance(self.source, Transformer) else self.source.module

    @property
    def latest(self) -> Transformer | StoredTransformer:
        """The module if it is in memory, where it may have changed, else the stored transformer."""
        return self.source if isinstance(self.source, Transformer) else self.source.latest

    @property
    def meta_transformer(self) -> Transformer:
        """The transformer's structure; its tensors must not be used."""
        return self.source if isinstance(self.source, Transformer) else self.source.meta_transformer

    @property
    def prepared_dtype(self) -> torch.dtype:
        """Dtype of the linear maps in decoding."""
        return self.dtype if isinstance(self.source, Transformer) else self.source.prepared_dtype

    @property
    def config(self) -> TransformerConfig:
        """Config of the transformer."""
        return self.source.config

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.source.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the transformer as a module."""
        return (
            self.source.embedding.tokens.weight.dtype
            if isinstance(self.source, Transformer)
            else self.source.dtype
        )

    @property
    def rounded_to(self) -> torch.dtype | None:
        """Dtype that the weights were rounded to on loading; None if exact."""
        return None if isinstance(self.source, Transformer) else self.source.rounded_to

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the transformer's weights before any rounding; adapters are bound to it."""
        if self.rounded_from is not None:
            return self.rounded_from
        latest = self.latest
        if isinstance(latest, StoredTransformer):
            return fingerprint_of_transformer(latest.weights)
        if isinstance(self.source, StoredTransformer) and self.rounded_to is not None:
            return fingerprint_of_transformer(self.source.weights)
        return fingerprint_of_transformer(latest.state_dict())


def _check_grid(grid: GridConfig, template: object) -> None:
    """Refuse masks that are not those of the template's picture.

    Raises:
        CogViewError: the parts do not fit together.
    """
    if isinstance(template, PaddedTextTemplate):
        num_before, most_shifted = template.num_text_tokens, 1
    elif isinstance(template, RightTextTemplate):
        num_before, most_shifted = template.num_left_tokens, 0
    else:
        raise CogViewError(
            "The parts of the model do not fit together: attention by a grid needs texts of fixed length (padded_text, "
            "or right_text for captions)."
        )
    wanted = (template.grid_rows, template.grid_columns, template.first_code_position)
    got = (grid.num_rows, grid.num_columns, grid.first_position)
    if got != wanted or not 0 <= num_before - grid.first_place <= most_shifted:
        raise CogViewError(
            "The parts of the model do not fit together: the template wants a grid of rows, columns and first position "
            f"{wanted} after {num_before} tokens, got {got} after {grid.first_place}."
        )
