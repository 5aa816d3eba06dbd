"""Conversion of the transformers released in 2021, and others of their layout, to a model folder and back."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_text, read_bounded
from cogview.folders import atomic_folder, refuse_taken
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.checkpoint_file import read_state_dict
from cogview.interop.released_layout import (
    CAPTION_TEMPLATE,
    EMBEDDING,
    FINAL_NORM,
    FIRST_MLP,
    FIRST_QUERY_KEY_VALUE,
    POSITIONS,
    SUPER_RESOLUTION_TEMPLATE,
    TEMPLATE,
    VOCABULARY,
    Sharding,
    layer_number,
    released_name,
)
from cogview.models.adapters import bare_adapter_card, save_task_model
from cogview.models.card import bare_card
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel, fields_of
from cogview.tensors import as_weights, weights_dtype
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.config import LEAST_TENSORS_OF_A_LAYER, TransformerConfig
from cogview.transformer.model import Transformer
from cogview.uninitialised import uninitialised

HEAD_SIZE = 64
_FILE = "mp_rank_{:02d}_model_states.pt"
_RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_POINTERS = ("latest", "latest_checkpointed_iteration.txt")
_MAX_POINTER_BYTES = 1000
_ITERATION = "release"  # folder of weights without training state
_PADDING_MULTIPLE = 128

ReleasedTask = Literal["text-to-image", "captioning", "super-resolution"]
_TEMPLATES = {"captioning": CAPTION_TEMPLATE, "super-resolution": SUPER_RESOLUTION_TEMPLATE}

Progress = Callable[[int, int], None]
"""Called with (tensors written, tensors in all)."""


def is_released_transformer(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of a released transformer."""
    return {EMBEDDING, POSITIONS} <= tensors.keys()


def is_released_folder(folder: Path) -> bool:
    """Return whether a folder has a pointer to a checkpoint of the release, or its files."""
    return any(path.name in _POINTERS or _RANK.fullmatch(path.name) for path in folder.iterdir())


def find_ranks(source: Path) -> list[Path]:
    """Return the files of a released checkpoint in the order of ranks.

    Args:
        source: the folder with `latest` or `latest_checkpointed_iteration.txt`, the folder of an iteration, or the file
            of the only rank.

    Raises:
        CogViewError: there is no checkpoint, or the file of a rank is missing.
    """
    if not source.is_dir():
        return [source]
    folder = source
    if pointer := next((source / name for name in _POINTERS if (source / name).is_file()), None):
        iteration = _read_pointer(pointer)
        folder = source / iteration
        # Looked up in the folder's listing, since the name may be anything.
        if not any(path.name == iteration and path.is_dir() for path in source.iterdir()):
            raise CogViewError(
                f"{pointer} names the folder {iteration[:80]!r}, which is not beside it; copy the checkpoint again"
            )
    ranks = {int(match[1]): path for path in folder.iterdir() if (match := _RANK.fullmatch(path.name))}
    if not ranks:
        raise CogViewError(
            f"{folder}: no checkpoint that is known; wanted a file of weights, a folder of diffusers or transformers "
            f"with its config.json, or the 2021 release's with {' or '.join(_POINTERS)}, or with {_FILE.format(0)}"
        )
    for rank in range(max(ranks) + 1):
        if rank not in ranks:
            raise CogViewError(
                f"{folder}: {_FILE.format(rank)} is missing; copy the files of all {max(ranks) + 1} ranks"
            )
    return [ranks[rank] for rank in sorted(ranks)]


def _read_pointer(pointer: Path) -> str:
    """Read the name of the last iteration's folder.

    Raises:
        CogViewError: the file cannot be read, or is too long.
    """
    try:
        return read_bounded(pointer, _MAX_POINTER_BYTES).decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        raise CogViewError(f"{pointer} cannot be read ({error}); copy the checkpoint again") from error


def convert_released_transformer(
    ranks: Sequence[Path],
    out: Path,
    *,
    task: ReleasedTask = "text-to-image",
    num_heads: int | None = None,
    text_tokenizer: TextTokenizer | None = None,
    image_tokenizer: ImageTokenizer | None = None,
    origin: str = "",
    progress: Progress | None = None,
) -> PretrainedModel:
    """Convert a released checkpoint to a model folder, or to a further task's folder, tensor by tensor.

    Depth and width follow from the weights, which keep their dtype; vocabulary and template are the release's.

    Args:
        ranks: files of model parallelism from `find_ranks`.
        out: the folder to make; one of the same kind is replaced.
        task: of the weights.
        num_heads: attention heads; by default of 64 channels each.
        text_tokenizer: to include; the authors' with 50,000 pieces fits.
        image_tokenizer: to include; one with 8,192 codes fits.
        origin: sentence for the card that tells where the checkpoint is from.
        progress: called after each tensor.

    Returns:
        The written model, with its transformer on the meta device.

    Raises:
        CogViewError: a file is damaged or cannot be read without running code; a tensor is missing, unknown, not finite
            or of the wrong shape; ranks do not belong together; `out` contains something else.
        UsageError: the heads do not divide the width.
    """
    checkpoint = _Checkpoint(ranks)
    config = checkpoint.config(num_heads)
    with uninitialised("meta"):
        transformer = Transformer(config)
    transformer.to(checkpoint.dtype)
    state = transformer.state_dict()
    checkpoint.check({released_name(name): tuple(tensor.shape) for name, tensor in state.items()})
    model = PretrainedModel(
        source=transformer.eval(),
        template=TEMPLATE,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        card=bare_card(config, TEMPLATE, text_tokenizer, image_tokenizer, origin),
    )
    num_done = 0

    def read(name: str) -> Iterator[Tensor]:
        nonlocal num_done
        yield from checkpoint.parts(released_name(name), state[name].shape[0])
        num_done += 1
        if progress:
            progress(num_done, len(state))

    if task == "text-to-image":
        save_pretrained(model, out, read=read)
    else:
        learnt = TaskModel(task=task, transformer=model.transformer, template=fields_of(_TEMPLATES[task]))
        learnt = replace(learnt, card=bare_adapter_card(learnt, origin))
        save_task_model(learnt, out, model, checkpoint.dtype, read=read)
    return model


class _Checkpoint:
    """Memory-mapped tensors of all ranks."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._ranks = [read_state_dict(path) for path in paths]
        first = self._ranks[0]
        if not is_released_transformer(first):
            raise CogViewError(f"{paths[0]}: no released transformer, it lacks {EMBEDDING} or {POSITIONS}")
        for path, rank in zip(paths[1:], self._ranks[1:], strict=True):
            shapes, wanted = ({name: tensor.shape for name, tensor in each.items()} for each in (rank, first))
            if differing := sorted(name for name, _ in shapes.items() ^ wanted.items()):
                raise CogViewError(
                    f"{path} does not fit {paths[0].name}: {differing[0]} is {_shape(shapes.get(differing[0]))} there "
                    f"and {_shape(wanted.get(differing[0]))} here; take the ranks of one checkpoint"
                )
        dtypes: set[torch.dtype] = set()
        for path, rank in zip(paths, self._ranks, strict=True):
            try:
                dtypes.update(weights_dtype(name, tensor) for name, tensor in rank.items())
            except CogViewError as error:
                raise CogViewError(f"{path}: {error}") from error
        self.dtype = functools.reduce(torch.promote_types, dtypes)
        """Smallest dtype that represents all weights exactly: float16 in the release."""

    def config(self, num_heads: int | None) -> TransformerConfig:
        """Return the configuration by the shapes, otherwise the release's."""
        hidden_size = self._size(FINAL_NORM)
        share = self._size(FIRST_QUERY_KEY_VALUE)
        if share * len(self._ranks) != 3 * hidden_size:
            ranks = f"{3 * hidden_size // share} ranks" if 3 * hidden_size % share == 0 else "other ranks"
            raise CogViewError(
                f"{self._paths[0]} is one of {ranks}, and {len(self._ranks)} were given; give the folder with all "
                "of them"
            )
        inner = self._size(FIRST_MLP) * len(self._ranks)
        if inner % hidden_size:
            raise CogViewError(
                f"{self._paths[0]}: an MLP of {inner} channels is no multiple of width {hidden_size}"
            )
        if num_heads is None and hidden_size % HEAD_SIZE:
            raise UsageError(
                f"width {hidden_size} is no multiple of {HEAD_SIZE}, the release's size of a head: give --num-heads"
            )
        if num_heads is not None and (num_heads < 1 or hidden_size % num_heads):
            raise UsageError(f"width {hidden_size} is no multiple of --num-heads {num_heads}")
        num_layers = len({layer_number(name) for name in self._ranks[0]} - {None})
        if num_layers * LEAST_TENSORS_OF_A_LAYER > len(self._ranks[0]):  # before many are built
            raise CogViewError(
                f"{self._paths[0]}: has {len(self._ranks[0]):,} tensors for {num_layers:,} layers; the checkpoint is "
                "incomplete"
            )
        return TransformerConfig(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=hidden_size // HEAD_SIZE if num_heads is None else num_heads,
            vocabulary_size=VOCABULARY.size,
            num_positions=self._size(POSITIONS),
            mlp_factor=inner // hidden_size,
            layer_norm="sandwich",
            norm_scope="tensor",
            layer_norm_epsilon=1e-5,
        )

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Check the shapes against the configuration."""
        num_ranks = len(self._ranks)
        shapes = {
            name: Sharding.of(name).whole_shape(tensor.shape, num_ranks)
            for name, tensor in self._ranks[0].items()
        }
        multiple = _PADDING_MULTIPLE * num_ranks
        if shapes[EMBEDDING][:1] == (-(-VOCABULARY.num_tokens // multiple) * multiple,):
            # Trainers pad the vocabulary, so that each rank's shard is a multiple of 128; the padding is unused.
            shapes[EMBEDDING] = (VOCABULARY.size, *shapes[EMBEDDING][1:])
        if differing := sorted(name for name, _ in expected.items() ^ shapes.items()):
            name = differing[0]
            raise CogViewError(
                f"{self._paths[0]}: {name} is {_shape(shapes.get(name))}, wanted {_shape(expected.get(name))}; the "
                "checkpoint is incomplete or of another layout"
            )

    def parts(self, name: str, num_rows: int) -> Iterator[Tensor]:
        """Check a tensor on all ranks and yield its first rows in consecutive parts."""
        shares = [as_weights(name, rank[name]) for rank in self._ranks]
        for path, share in zip(self._paths, shares, strict=True):
            # One pass without a copy; aminmax propagates NaN.
            if not bool(torch.isfinite(torch.stack(torch.aminmax(share))).all()):
                raise CogViewError(
                    f"{path}: {name} holds values that are infinite or NaN; the file is damaged, copy it again"
                )
            if Sharding.of(name).axis is None and not torch.equal(share, shares[0]):
                raise CogViewError(
                    f"{path} does not fit {self._paths[0].name}: {name}, which all ranks have, differs; take the ranks "
                    "of one checkpoint"
                )
        for part in Sharding.of(name).join(shares):
            yield part[:num_rows]
            num_rows -= len(part[:num_rows])

    def _size(self, name: str) -> int:
        """Return the length of a shard's first axis."""
        tensor = self._ranks[0].get(name)
        if tensor is None or not tensor.ndim or not tensor.numel():
            raise CogViewError(f"{self._paths[0]}: lacks {name}; the checkpoint is incomplete")
        return tensor.shape[0]


def write_released_transformer(folder: Path, out: Path, num_ranks: int = 1) -> PretrainedModel:
    """Convert the transformer of a model folder to the release's layout in float16.

    Args:
        folder: a model folder.
        out: the folder to make, with `release/` in it.
        num_ranks: number of files for model parallelism.

    Returns:
        The written model; `rounded_to` tells whether weights were rounded.

    Raises:
        CogViewError: the model folder is damaged, or its weights are too large for float16.
        UsageError: the layout does not support the transformer or `num_ranks`, or `out` is not empty.
    """
    refuse_taken(out)
    model = load_pretrained(folder, dtype=torch.float16)
    config = model.config
    if config.layer_norm != "sandwich":
        raise UsageError(
            f"the released layout is for layer_norm sandwich, and {folder} has {config.layer_norm}"
        )
    for what, is_there in (
        ("the gains of qk_norm", config.qk_norm),
        ("a head of its own", config.head != "tied"),
        ("positions by rows and columns", config.position_table != "learned"),
    ):
        if is_there:
            raise UsageError(f"the released layout has no place for {what}, which {folder} has")
    for what, number in (("heads", config.num_heads), ("rows of the embedding", config.vocabulary_size)):
        if num_ranks < 1 or number % num_ranks:
            raise UsageError(f"{number} {what} cannot be shared by {num_ranks} ranks: give another number")
    state = {released_name(name): tensor for name, tensor in model.transformer.state_dict().items()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):
            raise CogViewError(
                f"{folder}: {name} holds values that are infinite, NaN or too large for float16"
            )
    with atomic_folder(out) as unfinished:
        (unfinished / _ITERATION).mkdir()
        for rank in range(num_ranks):
            shards = {
                name: _own_memory(Sharding.of(name).cut(tensor, num_ranks, rank))
                for name, tensor in state.items()
            }
            torch.save(
                {"iteration": 0, "module": shards},
                unfinished / _ITERATION / _FILE.format(rank),
            )
        for name in _POINTERS:
            atomic_write_text(unfinished / name, _ITERATION)
    return model


def _own_memory(tensor: Tensor) -> Tensor:
    """Copy a tensor that is a view, since PyTorch saves the whole memory behind a view."""
    is_part = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor.contiguous().clone() if is_part else tensor


def _shape(shape: Sequence[int] | None) -> str:
    return "missing" if shape is None else str(list(shape))
