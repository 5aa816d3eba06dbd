"""Conversion of the transformers of ruDALL-E and RuDOLPH to a model folder."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.rudalle_layout import (
    CODES,
    HEAD,
    LEFT_POSITIONS,
    RIGHT_POSITIONS,
    TEXT,
    TEXT_POSITIONS,
    UNUSED_BIAS,
    Layout,
    TextSequence,
    layout_of,
    split_masks,
    their_name,
)
from cogview.models.card import bare_card
from cogview.models.folder import save_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel, fields_of
from cogview.tensors import as_weights, weights_dtype
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from cogview.transformer.model import Transformer
from cogview.uninitialised import uninitialised

CAPTIONER = "captioner"
"""Adapter of RuDOLPH that writes captions: the model itself, with the text after the picture."""

TOP_P = 0.995
"""Of ruDALL-E's own example."""

Progress = Callable[[int, int], None]
"""Called with (tensors written, tensors in all)."""


def convert_rudalle(
    tensors: Mapping[str, Tensor],
    out: Path,
    *,
    num_heads: int | None = None,
    sequence: TextSequence | None = None,
    kernel_sizes: tuple[int, int] | None = None,
    text_tokenizer: TextTokenizer | None = None,
    image_tokenizer: ImageTokenizer | None = None,
    origin: str = "",
    progress: Progress | None = None,
) -> tuple[PretrainedModel, Layout]:
    """Convert a checkpoint to a model folder, tensor by tensor.

    Sizes follow from the weights, which keep their dtype. RuDOLPH gets an adapter that writes captions.

    Args:
        tensors: by name, mapped.
        out: the folder to make; a model folder without other adapters is replaced.
        num_heads: attention heads; by default those of the published models of this width.
        sequence: of ruDALL-E, if the checkpoint has no masks.
        kernel_sizes: of RuDOLPH, if it has no masks and its width is not that of a published model.
        text_tokenizer: to include.
        image_tokenizer: to include.
        origin: sentence for the card that tells where the checkpoint is from.
        progress: called after each tensor.

    Returns:
        The written model, with its transformer on the meta device, and its layout.

    Raises:
        CogViewError: a tensor is missing, unknown, not finite or of the wrong shape; `out` contains something else.
        UsageError: something has to be told.
    """
    weights, masks = split_masks(tensors)
    layout = layout_of(
        weights,
        masks,
        num_heads=num_heads,
        sequence=sequence,
        kernel_sizes=kernel_sizes,
        num_pieces=None if text_tokenizer is None else text_tokenizer.num_pieces,
        num_codes=None if image_tokenizer is None else image_tokenizer.num_codes,
    )
    layout.check_masks(masks)
    checkpoint = _Checkpoint(weights, layout)
    with uninitialised("meta"):
        transformer = Transformer(layout.config)
    transformer.eval().to(
        functools.reduce(torch.promote_types, {weights_dtype(*item) for item in weights.items()})
    )
    state = transformer.state_dict()
    checkpoint.check({name: tuple(tensor.shape) for name, tensor in state.items()})
    captioner = layout.caption_template and TaskModel(
        task="captioning",
        transformer=AdaptedTransformer(transformer, AdapterConfig(maps=())),
        template=fields_of(layout.caption_template),
    )
    model = PretrainedModel(
        source=transformer,
        template=layout.template,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        text_case="lower",
        top_p=TOP_P,
        card=bare_card(layout.config, layout.template, text_tokenizer, image_tokenizer, origin),
        adapters={CAPTIONER: captioner} if captioner else {},
    )
    num_done = 0

    def read(name: str) -> Iterator[Tensor]:
        nonlocal num_done
        yield from checkpoint.parts(name, state[name])
        num_done += 1
        if progress:
            progress(num_done, len(state))

    save_pretrained(model, out, read=read)
    return model, layout


class _Checkpoint:
    """Tensors of a checkpoint, put together as ours are.

    Args:
        weights: by name.
        layout: of the checkpoint.
    """

    def __init__(self, weights: Mapping[str, Tensor], layout: Layout) -> None:
        self._weights = weights
        self._layout = layout
        self._sources: dict[str, tuple[str, ...]] = {
            "embedding.tokens.weight": (CODES, TEXT),
            "embedding.positions.weight": (
                (TEXT_POSITIONS,) if layout.num_right is None else (LEFT_POSITIONS, RIGHT_POSITIONS)
            ),
            "own_head.weight": (f"{HEAD}.weight",),
            "own_head.bias": (f"{HEAD}.bias",),
        }

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that there are all tensors of our transformer, of the right shape, and no others.

        Args:
            shapes: of our transformer's tensors, by our names.

        Raises:
            CogViewError: a tensor is missing, unknown or of the wrong shape.
        """
        layout, wanted = self._layout, {}
        width, num_head = layout.width, layout.num_texts + layout.num_codes
        for name, shape in shapes.items():
            theirs = their_name(name)
            if theirs is not None:
                wanted[theirs] = shape
        wanted |= {
            TEXT: (layout.num_texts, width),
            CODES: (layout.num_codes, width),
            f"{HEAD}.weight": (num_head, width),
            f"{HEAD}.bias": (num_head,),
        }
        wanted |= {
            name: (len(self._weights[name]), width) for name in self._sources["embedding.positions.weight"]
        }
        for name in sorted(wanted.keys() | self._weights.keys()):
            got = tuple(self._weights[name].shape) if name in self._weights else None
            if got != wanted.get(name):
                raise CogViewError(
                    f"{layout.name}: {name} is {'missing' if got is None else list(got)}, wanted "
                    f"{'no such tensor' if name not in wanted else list(wanted[name])}; the file is incomplete or of "
                    "another layout"
                )

    def parts(self, name: str, ours: Tensor) -> Iterator[Tensor]:
        """Yield one of our tensors in parts along its first axis.

        Args:
            name: of our tensor.
            ours: tensor of its shape.

        Raises:
            CogViewError: it has values that are not finite.
        """
        theirs = their_name(name)
        if theirs is not None:
            yield self._read(theirs)
            return
        tables = [self._read(source) for source in self._sources[name]]
        if name == "embedding.positions.weight":
            yield from tables
            return
        vocabulary, num_texts = self._layout.vocabulary, self._layout.num_texts
        codes, texts = tables if len(tables) == 2 else (tables[0][num_texts:], tables[0][:num_texts])
        unused = UNUSED_BIAS if ours.ndim == 1 else 0.0

        def rows(num: int) -> Tensor:
            return torch.full((num, *ours.shape[1:]), unused, dtype=codes.dtype)

        num_drawn = vocabulary.num_image_codes
        num_separators = vocabulary.special_codes.start - vocabulary.pads.stop
        yield from (codes[:num_drawn], texts, rows(num_separators), codes[num_drawn:])
        yield rows(len(ours) - vocabulary.num_tokens)

    def _read(self, name: str) -> Tensor:
        tensor = as_weights(name, self._weights[name])
        if not bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):
            raise CogViewError(
                f"{self._layout.name}: {name} holds values that are infinite or NaN; the file is damaged, copy it again"
            )
        return tensor
