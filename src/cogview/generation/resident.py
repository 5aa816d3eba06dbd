"""A model at hand: its parts, what else it can do, and what runs them."""

import tempfile
import threading
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import torch

from cogview.decoding.config import Sampler, SamplingConfig
from cogview.decoding.engine import Runner
from cogview.errors import CogViewError, UsageError
from cogview.generation.adapters import DRAWING_TASKS, check_name, find_adapter_folder, load_task_model
from cogview.generation.parts import PretrainedModel, TaskModel, TaskName
from cogview.generation.pretrained import save_pretrained
from cogview.image.tokenizer import ImageTokenizer
from cogview.sequence.template import TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.model import Transformer

MAX_SHOWN_WORDS = 12
"""Unknown words that one warning names."""


class ResidentModel:
    """A model in memory, with any number of adapters beside it that share its weights, as they are or prepared.

    Args:
        model: the parts.
    """

    def __init__(self, model: PretrainedModel) -> None:
        self._model = model
        self._lock = (
            threading.RLock()
        )  # of what is made when it is first asked for, perhaps by several threads
        self._base_runner: Runner | None = None
        self._runners: dict[TaskModel, Runner] = {}
        self._weakened: tuple[TaskModel, float, TaskModel] | None = None

    def __repr__(self) -> str:
        template, adapters = self.template, ", ".join(self._model.names_for(*get_args(TaskName))) or "none"
        return (
            f"{type(self).__name__}({self.transformer.config.num_parameters:,} parameters, draws "
            f"{template.grid_rows} x {template.grid_columns} codes, on {self.device} in "
            f"{str(self.dtype).removeprefix('torch.')}, adapters: {adapters})"
        )

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
    def fingerprint(self) -> str:
        """Of the transformer's weights: equal means equal."""
        return self._model.fingerprint

    @property
    def guidance(self) -> float:
        """What `generate` draws with unless told otherwise."""
        return self._model.guidance

    @property
    def top_p(self) -> float:
        """What `generate` draws with unless told otherwise."""
        return self._model.top_p

    def sampling(
        self,
        temperature: float | int = 1.0,
        top_k: int | None = None,
        top_p: float | int | None = None,
        guidance: float | int | None = None,
        sampler: Sampler = "gumbel",
    ) -> SamplingConfig:
        """Return how to draw, with the model's own top-p and guidance where None are given.

        Raises:
            UsageError: an impossible number.
        """
        return SamplingConfig(
            guidance=self.guidance if guidance is None else float(guidance),
            temperature=float(temperature),
            top_k=top_k,
            top_p=self.top_p if top_p is None else float(top_p),
            sampler=sampler,
        )

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

    @property
    def adapters(self) -> MappingProxyType[str, TaskModel]:
        """What the model can do beside its own task, by name; each is read when it is first asked for."""
        return MappingProxyType(self._model.adapters)

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
        added = load_task_model(find_adapter_folder(path), self._model)
        with self._lock:
            replaced = self._model.adapters.get(name)
            self._model.adapters[name] = added
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
        model = self._model
        task = self.adapters.get(adapter) if isinstance(adapter, str) else adapter
        texts = list(dict.fromkeys(texts))
        known, tokenizer, case = model.words, model.text_tokenizer, model.text_case
        if known is None or tokenizer is None:
            return {text: text for text in texts}
        if task is not None and task.words is not None:
            known = known | task.words
        # Of an adapter that does not say which words it learnt, none can be called unknown.
        has_all = task is None or task.words is not None
        unknown = list(dict.fromkeys(word for text in texts for word in known.unknown(text, tokenizer, case)))
        if unknown and has_all:
            shown = ", ".join(unknown[:MAX_SHOWN_WORDS])
            more = f" and {len(unknown) - MAX_SHOWN_WORDS} more" if len(unknown) > MAX_SHOWN_WORDS else ""
            never = "hardly ever, or never," if known.num_left_out else "never"
            told = f"the model has {never} seen: {shown}{more}"
            if strict:
                raise UsageError(f"{told}; say it in words that it knows, or leave strict out")
            warnings.warn(f"{told}; what it makes of that means nothing", stacklevel=1)
        return {text: known.in_usual_case(text) if case == "usual" else text for text in texts}

    def names_for(self, task: TaskName) -> list[str]:
        """Return the names of the adapters for a task."""
        return self._model.names_for(task)

    def adapter_for(self, task: TaskName, noun: str, name: str | None, absent: str) -> TaskModel:
        """Return the adapter for a task that is named, or the only one.

        Args:
            task: what it has to be for.
            noun: what such an adapter is called in errors.
            name: of the adapter; only needed if there are several for the task.
            absent: the error where there is none.

        Raises:
            UsageError: there is none of that name, or none at all, or several and none was named.
        """
        known = self.names_for(task)
        if not known:
            raise UsageError(absent)
        if name not in known and (name is not None or len(known) > 1):
            problem = f"several {noun}s" if name is None else f"no {noun} {name!r}"
            raise UsageError(f"this model has {problem}; choose one of {', '.join(known)}")
        return self.adapters[name or known[0]]

    @property
    def _runner(self) -> Runner:
        """What runs the model itself; the weights are prepared when it is first needed."""
        with self._lock:
            if self._base_runner is None:
                self._base_runner = Runner.of(self.transformer)
            return self._base_runner

    def runner_of(self, adapter: TaskModel) -> Runner:
        """Return what runs an adapter; made once, it shares what can be shared with the model's."""
        with self._lock:
            if adapter not in self._runners:
                transformer = adapter.transformer
                self._runners[adapter] = (
                    self._runner.adapted(transformer)
                    if isinstance(transformer, AdaptedTransformer)
                    else Runner.of(transformer)
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

    def drawer(self, adapter: str | None, strength: float | int = 1.0) -> tuple[Runner, TextToImageTemplate]:
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
        drawing = self._model.names_for(*DRAWING_TASKS)
        if adapter not in drawing:
            task = f"is for {self.adapters[adapter].task}" if adapter in self.adapters else "does not exist"
            known = ", ".join(drawing) or "none"
            raise UsageError(f"the adapter {adapter!r} {task}; those that draw from texts are: {known}")
        with self._lock:
            chosen = self._at_strength(self.adapters[adapter], float(strength))
            runner = self.runner_of(chosen)
        return runner, chosen.template_of(TextToImageTemplate, self.template.vocabulary)

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
