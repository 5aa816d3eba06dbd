"""A loaded model: its parts and adapters, what runs them, and how it reads what users give."""

import threading
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch

from cogview.decoding.engine import Runner
from cogview.errors import CogViewError, UsageError
from cogview.generation.caption_model import CaptionModel
from cogview.generation.decoded import PictureDecoder
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
"""Unknown words that one warning names."""

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
"""What an adapter for a task is called, and what is said where there is none."""


class LoadedModel:
    """A model in memory, with any number of adapters beside it that share its weights, as they are or prepared.

    Args:
        parts: what its folder holds.
    """

    def __init__(self, parts: PretrainedModel) -> None:
        self.parts = parts
        # Of what is made when it is first asked for, perhaps by several threads.
        self._lock = threading.RLock()
        self._base_runner: Runner | None = None
        self._runners: dict[TaskModel, Runner] = {}
        self._weakened: tuple[TaskModel, float, TaskModel] | None = None

    @property
    def transformer(self) -> Transformer:
        """Tokens and positions, both [b t], to logits [b t v]."""
        return self.parts.transformer

    @property
    def template(self) -> TextToImageTemplate:
        """The order of the tokens."""
        return self.parts.template

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Words to pieces.

        Raises:
            CogViewError: the model was converted without.
        """
        if self.parts.text_tokenizer is None:
            raise CogViewError(
                "this model has no text tokenizer, so it reads no words: put its SentencePiece file into its folder as "
                "text.model, or convert it with --text-tokenizer"
            )
        return self.parts.text_tokenizer

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """Codes to pixels and back.

        Raises:
            CogViewError: the model was converted without.
        """
        if self.parts.image_tokenizer is None:
            raise CogViewError(
                "this model has no image tokenizer, so it draws codes (generate_codes) but no pixels: put its folder "
                "into the model's as image_tokenizer, or convert it with --image-tokenizer"
            )
        return self.parts.image_tokenizer

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.parts.device

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer's weights were rounded to; with int8, the module has the rounded ones in float32."""
        return self.parts.prepared_dtype

    @property
    def adapters(self) -> MappingProxyType[str, TaskModel]:
        """What the model can do beside its own task, by name; each is read when it is first asked for."""
        return MappingProxyType(self.parts.adapters)

    def add_adapter(self, path: str | Path, name: str) -> TaskModel:
        """Load an adapter, or a whole transformer for another task and the same tokenizers.

        Args:
            path: its folder, or that of the run which trained it.
            name: it can be asked for by; one of that name is replaced.

        Raises:
            UsageError: the name cannot be that of a folder.
            CogViewError: there is no adapter, it is incomplete, of another version, or not for this model.
        """
        check_name(name)
        added = load_task_model(find_adapter_folder(path), self.parts)
        with self._lock:
            replaced = self.parts.adapters.get(name)
            self.parts.adapters[name] = added
            if replaced is not None:
                self._runners.pop(replaced, None)
        return added

    def reading(
        self,
        texts: Iterable[str],
        adapter: TaskModel | str | None = None,
        strict: bool = False,
    ) -> dict[str, str]:
        """Return what is read for each text: itself, or its words in the spelling that the model knows.

        Words that the model has never seen are warned of, if it is known which it has.

        Args:
            texts: as a user writes them.
            adapter: what reads them, or its name; the model itself by default.
            strict: refuse unknown words instead.

        Raises:
            UsageError: a word is unknown, and `strict`.
        """
        texts, known = list(dict.fromkeys(texts)), self._known_words(adapter)
        if known is None:
            return {text: text for text in texts}
        if unknown := self.unknown_words(texts, adapter):
            shown = ", ".join(unknown[:MAX_SHOWN_WORDS])
            more = f" and {len(unknown) - MAX_SHOWN_WORDS} more" if len(unknown) > MAX_SHOWN_WORDS else ""
            never = "hardly ever, or never," if known.num_left_out else "never"
            told = f"the model has {never} seen: {shown}{more}"
            if strict:
                raise UsageError(f"{told}; say it in words that it knows, or leave strict out: {_LIST}")
            warnings.warn(f"{told}; what it makes of that means nothing: {_LIST}", stacklevel=1)
        has_cases = self.parts.text_case != "usual"
        return {text: text if has_cases else known.in_usual_case(text) for text in texts}

    def unknown_words(self, texts: Iterable[str], adapter: TaskModel | str | None = None) -> list[str]:
        """Return the words of texts that the model has never seen, each once; none if it is not known which it has.

        Args:
            texts: as a user writes them.
            adapter: what reads them, or its name; the model itself by default. Of one that does not say which words it
                learnt, none can be called unknown.
        """
        task, known = self._adapter(adapter), self._known_words(adapter)
        if known is None or (task is not None and task.words is None):
            return []
        tokenizer, case = self.text_tokenizer, self.parts.text_case
        return list(dict.fromkeys(word for text in texts for word in known.unknown(text, tokenizer, case)))

    def _adapter(self, adapter: TaskModel | str | None) -> TaskModel | None:
        return self.adapters.get(adapter) if isinstance(adapter, str) else adapter

    def _known_words(self, adapter: TaskModel | str | None) -> KnownWords | None:
        """Return the words that the model has learnt, with or without an adapter; None if they are not known."""
        task, words = self._adapter(adapter), self.parts.words
        if words is None or self.parts.text_tokenizer is None:
            return None
        return words if task is None else words | task.words

    def adapter_for(self, task: Literal["captioning", "super-resolution"], name: str | None) -> TaskModel:
        """Return the adapter for a task that is named, or the only one.

        Args:
            task: what it has to be for.
            name: of the adapter; only needed if there are several for the task.

        Raises:
            UsageError: there is none of that name, or none at all, or several and none was named.
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
        """Return what writes texts after pictures; it shares what can be shared with the model.

        Raises:
            UsageError: as `adapter_for` does.
        """
        chosen = self.adapter_for("captioning", name)
        template = chosen.template_of(CaptionTemplate, self.template.vocabulary)
        return CaptionModel(self.runner_of(chosen), template)

    def super_resolution(self, name: str | None = None) -> SuperResolution:
        """Return what draws more codes of pictures; it shares what can be shared with the model.

        Raises:
            UsageError: as `adapter_for` does.
        """
        chosen = self.adapter_for("super-resolution", name)
        template = chosen.template_of(SuperResolutionTemplate, self.template.vocabulary)
        return SuperResolution(self.runner_of(chosen), template)

    @property
    def _runner(self) -> Runner:
        """What runs the model itself; the weights are prepared when it is first needed."""
        with self._lock:
            if self._base_runner is None:
                self._base_runner = Runner.of(
                    self.parts.latest,
                    dtype=self.parts.prepared_dtype,
                    resources=self.parts.resources,
                    guess_table=self.parts.guess_table,
                )
            return self._base_runner

    def runner_of(self, adapter: TaskModel) -> Runner:
        """Return what runs an adapter; made once, it shares what can be shared with the model's."""
        with self._lock:
            if adapter not in self._runners:
                transformer = adapter.transformer
                self._runners[adapter] = (
                    self._runner.adapted(transformer)
                    if isinstance(transformer, AdaptedTransformer)
                    else Runner.of(
                        transformer, dtype=self.parts.prepared_dtype, resources=self.parts.resources
                    )
                )
            return self._runners[adapter]

    def _at_strength(self, adapter: TaskModel, strength: float) -> TaskModel:
        """Return an adapter as strong as asked; the last one that was asked for is kept, and no engine of others.

        Called with the lock held, so that the engine is that of the one which is kept.
        """
        if strength == 1:
            return adapter
        if not isinstance(adapter.transformer, AdaptedTransformer):
            raise UsageError("a whole transformer in an adapter's place has no strength: leave it out")
        kept = self._weakened
        if kept is not None and kept[:2] == (adapter, strength):
            return kept[2]
        other = replace(adapter, transformer=adapter.transformer.at_strength(strength))
        self._weakened = adapter, strength, other
        if kept is not None:
            self._runners.pop(kept[2], None)
        return other

    def drawing(
        self, adapter: str | None = None, strength: float | int = 1.0
    ) -> tuple[Runner, TextToImageTemplate]:
        """Return what draws, the model or one of its adapters by name, and the sequence that it draws in.

        Args:
            adapter: its name; None for the model itself.
            strength: the adapter adds so many times what it learnt to add.

        Raises:
            UsageError: there is no such adapter, or it is for another task, or there is none that could be stronger.
        """
        if adapter is None:
            if strength != 1:
                raise UsageError(f"adapter_strength is {strength:g}, but no adapter is drawn with: name one")
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
        """The longer side of the pictures whose codes the model draws."""
        template = self.template
        return max(template.grid_rows, template.grid_columns) * self.image_tokenizer.downsampling_factor

    @cached_property
    def decoder(self) -> PictureDecoder:
        """What makes pictures of codes; `CogViewError` if the model was converted without an image tokenizer."""
        return PictureDecoder(self.image_tokenizer)
