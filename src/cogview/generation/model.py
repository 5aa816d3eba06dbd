"""A loaded model: its parts, its adapters and what runs them."""

import threading
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch

from cogview.decoding.engine import Runner
from cogview.errors import CogViewError, UsageError, shortened
from cogview.generation.caption_model import CaptionModel
from cogview.generation.picture_decoder import PictureDecoder
from cogview.generation.super_resolution import SuperResolution
from cogview.image.tokenizer import ImageTokenizer
from cogview.models.adapters import check_name, find_adapter_folder, load_task_model
from cogview.models.config import DRAWING_TASKS, TaskName
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import TextToImageTemplate
from cogview.text.known_words import KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.model import Transformer

MAX_SHOWN_WORDS = 12
"""Unknown words to name in one warning."""

_LIST = "'cogview words' lists what a model knows"

_WANTED: dict[TaskName, tuple[str, str]] = {
    "captioning": (
        "captioner",
        "this model has no captioner, so it cannot caption or rank: train one with cogview train captioning, and give "
        "its run as --captioner, or to add_adapter",
    ),
    "super-resolution": (
        "upscaler",
        "this model has no adapter for super-resolution, so it cannot upscale: train one with cogview train "
        "super-resolution, and give its run as --upscaler, or to add_adapter",
    ),
}
"""Noun for an adapter of each task, and the error if there is none."""


class LoadedModel:
    """Model in memory, with adapters that share its weights.

    Args:
        parts: of the model folder.
    """

    def __init__(self, parts: PretrainedModel) -> None:
        self.parts = parts
        # Guards what is created on first use, perhaps by several threads.
        self._lock = threading.RLock()
        self._base_runner: Runner | None = None
        self._runners: dict[TaskModel, Runner] = {}
        self._scaled: tuple[TaskModel, float, TaskModel] | None = None

    @property
    def transformer(self) -> Transformer:
        """Maps tokens and positions, both [b t], to logits [b t v]."""
        return self.parts.transformer

    @property
    def template(self) -> TextToImageTemplate:
        """Token order."""
        return self.parts.template

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Maps text to pieces.

        Raises:
            CogViewError: the model has none.
        """
        if self.parts.text_tokenizer is None:
            raise CogViewError(
                "this model has no text tokenizer, so it reads no words: put its file (SentencePiece or "
                "YouTokenToMe) into its folder as text.model, or convert it with --text-tokenizer"
            )
        return self.parts.text_tokenizer

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """Maps pixels to codes and back.

        Raises:
            CogViewError: the model has none.
        """
        if self.parts.image_tokenizer is None:
            raise CogViewError(
                "this model has no image tokenizer, so it draws codes (generate_codes) but no pixels: put its folder "
                "into the model's as image_tokenizer, or convert it with --image-tokenizer"
            )
        return self.parts.image_tokenizer

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.parts.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype that the transformer's weights were rounded to; with int8, the module holds them as float32."""
        return self.parts.prepared_dtype

    @property
    def adapters(self) -> MappingProxyType[str, TaskModel]:
        """Adapters by name, each read when it is first used."""
        return MappingProxyType(self.parts.adapters)

    def add_adapter(self, path: str | Path, name: str) -> TaskModel:
        """Load an adapter, or a whole transformer for another task with the same tokenizers.

        Args:
            path: adapter folder, or folder of the run that trained it.
            name: of the adapter; replaces one of that name.

        Raises:
            UsageError: the name cannot be a folder's name.
            CogViewError: the adapter is missing, incomplete, of another version, or not for this model.
        """
        check_name(name)
        adapter = load_task_model(find_adapter_folder(path), self.parts)
        with self._lock:
            replaced = self.parts.adapters.get(name)
            self.parts.adapters[name] = adapter
            if replaced is not None:
                self._runners.pop(replaced, None)
        return adapter

    def known_spellings(
        self,
        texts: Iterable[str],
        adapter: TaskModel | str | None = None,
        strict: bool = False,
    ) -> dict[str, str]:
        """Return each text in the spelling that the model knows, and warn of unknown words.

        Args:
            texts: as the user wrote them.
            adapter: adapter, or its name, that reads the texts; the model itself by default.
            strict: refuse unknown words.

        Raises:
            UsageError: a word is unknown, and `strict`.
        """
        texts, known = list(dict.fromkeys(texts)), self._known_words(adapter)
        is_lower = self.parts.text_case == "lower"
        if known is None:
            return {text: text.lower() if is_lower else text for text in texts}
        if unknown := self._texts_of_unknown_words(texts, adapter):
            shown = ", ".join(
                f'{word} (in "{shortened(text)}")' if len(texts) > 1 else word
                for word, text in islice(unknown.items(), MAX_SHOWN_WORDS)
            )
            more = f" and {len(unknown) - MAX_SHOWN_WORDS} more" if len(unknown) > MAX_SHOWN_WORDS else ""
            never = "hardly ever, or never," if known.num_left_out else "never"
            problem = f"the model has {never} seen: {shown}{more}"
            if strict:
                raise UsageError(f"{problem}. Use words that it knows, or leave strict out; {_LIST}")
            it = "it" if len(unknown) == 1 else "them"
            warnings.warn(f"{problem}. What it makes of {it} means nothing; {_LIST}", stacklevel=1)
        if self.parts.text_case == "usual":
            return {text: known.in_usual_case(text) for text in texts}
        return {text: text.lower() if is_lower else text for text in texts}

    def unknown_words(self, texts: Iterable[str], adapter: TaskModel | str | None = None) -> list[str]:
        """Return the words of texts that are known to be new to the model, each once.

        Args:
            texts: as the user wrote them.
            adapter: adapter, or its name, that reads the texts; the model itself by default. No word is unknown to an
                adapter without a list of words.
        """
        return list(self._texts_of_unknown_words(texts, adapter))

    def _texts_of_unknown_words(
        self, texts: Iterable[str], adapter: TaskModel | str | None
    ) -> dict[str, str]:
        """Return the first text of each unknown word, by the word."""
        task, known = self._adapter(adapter), self._known_words(adapter)
        if known is None or (task is not None and task.words is None):
            return {}
        first: dict[str, str] = {}
        for text in texts:
            for word in known.unknown(text, self.text_tokenizer, self.parts.text_case):
                first.setdefault(word, text)
        return first

    def _adapter(self, adapter: TaskModel | str | None) -> TaskModel | None:
        return self.adapters.get(adapter) if isinstance(adapter, str) else adapter

    def _known_words(self, adapter: TaskModel | str | None) -> KnownWords | None:
        """Return the words that the model and an adapter have learnt; None if they are not listed."""
        task, words = self._adapter(adapter), self.parts.words
        if words is None or self.parts.text_tokenizer is None:
            return None
        return words if task is None else words | task.words

    def adapter_for(self, task: Literal["captioning", "super-resolution"], name: str | None) -> TaskModel:
        """Return the named adapter for a task, or the only one.

        Args:
            task: of the adapter.
            name: of the adapter; needed only if there are several for the task.

        Raises:
            UsageError: there is none, none of that name, or several and no name.
        """
        noun, absent = _WANTED[task]
        known = self.parts.names_for(task)
        if not known:
            raise UsageError(absent)
        if name not in known and (name is not None or len(known) > 1):
            problem = f"several {noun}s" if name is None else f"no {noun} {name!r}"
            raise UsageError(f"this model has {problem}; choose one of {', '.join(known)}")
        return self.adapters[name or known[0]]

    def caption_model(self, name: str | None = None) -> CaptionModel:
        """Return the model that writes captions.

        Raises:
            UsageError: as `adapter_for` does.
        """
        chosen = self.adapter_for("captioning", name)
        template = chosen.template_of(CaptionTemplate, self.template.vocabulary)
        return CaptionModel(self.runner_of(chosen), template)

    def super_resolution(self, name: str | None = None) -> SuperResolution:
        """Return the model that upscales codes.

        Raises:
            UsageError: as `adapter_for` does.
        """
        chosen = self.adapter_for("super-resolution", name)
        template = chosen.template_of(SuperResolutionTemplate, self.template.vocabulary)
        return SuperResolution(self.runner_of(chosen), template)

    @property
    def _runner(self) -> Runner:
        """Runner of the model itself; the weights are prepared on first use."""
        with self._lock:
            if self._base_runner is None:
                self._base_runner = Runner.of(
                    self.parts.latest,
                    dtype=self.parts.prepared_dtype,
                    backend=self.parts.resources.kernels,
                    resources=self.parts.resources,
                    guess_table=self.parts.guess_table,
                )
            return self._base_runner

    def runner_of(self, adapter: TaskModel) -> Runner:
        """Return the runner of an adapter, cached; it shares what it can with the model's."""
        with self._lock:
            if adapter not in self._runners:
                transformer = adapter.transformer
                self._runners[adapter] = (
                    self._runner.adapted(transformer)
                    if isinstance(transformer, AdaptedTransformer)
                    else Runner.of(
                        transformer,
                        dtype=self.parts.prepared_dtype,
                        backend=self.parts.resources.kernels,
                        resources=self.parts.resources,
                    )
                )
            return self._runners[adapter]

    def _at_strength(self, adapter: TaskModel, strength: float) -> TaskModel:
        """Return an adapter scaled by a strength.

        Caches the last one, and drops the runner of the one before. Call with the lock held.
        """
        if strength == 1:
            return adapter
        if not isinstance(adapter.transformer, AdaptedTransformer):
            raise UsageError(
                "this adapter is a whole transformer and has no strength: leave adapter_strength out"
            )
        cached = self._scaled
        if cached is not None and cached[:2] == (adapter, strength):
            return cached[2]
        scaled = replace(adapter, transformer=adapter.transformer.at_strength(strength))
        self._scaled = adapter, strength, scaled
        if cached is not None:
            self._runners.pop(cached[2], None)
        return scaled

    def drawing(
        self, adapter: str | None = None, strength: float | int = 1.0
    ) -> tuple[Runner, TextToImageTemplate]:
        """Return the runner and the token order to draw with, of the model or an adapter.

        Args:
            adapter: name of an adapter; None for the model itself.
            strength: factor of the adapter's weights.

        Raises:
            UsageError: the adapter is missing, for another task, or has no strength.
        """
        if adapter is None:
            if strength != 1:
                raise UsageError(f"adapter_strength is {strength:g}, but there is no adapter: name one")
            return self._runner, self.template
        drawing = self.parts.names_for(*DRAWING_TASKS)
        if adapter not in drawing:
            task = f"is for {self.adapters[adapter].task}" if adapter in self.adapters else "does not exist"
            known = ", ".join(drawing) or "none"
            raise UsageError(f"the adapter {adapter!r} {task}; those that draw from texts are: {known}")
        with self._lock:
            chosen = self._at_strength(self.adapters[adapter], float(strength))
            runner = self.runner_of(chosen)
        return runner, chosen.template_of(TextToImageTemplate, self.template.vocabulary)

    @property
    def encoded_pixels(self) -> int:
        """Longer side of the pictures whose codes the model draws."""
        template = self.template
        return max(template.grid_rows, template.grid_columns) * self.image_tokenizer.downsampling_factor

    @cached_property
    def decoder(self) -> PictureDecoder:
        """Decoder of codes; raises `CogViewError` if the model has no image tokenizer."""
        return PictureDecoder(self.image_tokenizer)
