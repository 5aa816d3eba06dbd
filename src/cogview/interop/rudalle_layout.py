"""Layout of the transformers of ruDALL-E and RuDOLPH: sizes, tensor names, sequences, masks of their layers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.interop.weights import INCOMPLETE, shape_of
from cogview.sequence.padded_text import PaddedTextTemplate
from cogview.sequence.right_text import RightTextTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import GridConfig, TransformerConfig, masks_by_layer
from cogview.transformer.grid_attention import LayerGrid

TextSequence = Literal["v2", "v3"]
"""ruDALL-E's two token orders: v2 has one token more before the text."""

NUM_PIECES, NUM_CODES = 16_384, 8_192
PADDING_PIECE, UNKNOWN_PIECE, START_PIECE, END_PIECE = range(4)
_LEFT_TO_IMAGE, _LEFT_TO_TEXT, _RIGHT_OF_IMAGE = 2, 3, 5
"""RuDOLPH's special pieces that begin a text to draw, the left and the right text of a caption."""

_HEADS = {1024: 16, 2048: 16, 2560: 32, 3840: 60}
"""Heads of the published models by their width."""

_KERNELS = {1024: (7, 9), 2048: (9, 11), 2560: (7, 9)}
"""RuDOLPH's squares by width: those of every fourth layer, and of the last."""

_LAST_KERNEL = 11
UNUSED_BIAS = -1e4
"""Bias of the head's rows that stand for no token."""

TEXT, CODES = "text_embeddings.weight", "image_embeddings.weight"
ROWS, COLUMNS = "image_row_embeddings.weight", "image_col_embeddings.weight"
TEXT_POSITIONS = "text_pos_embeddings.weight"
LEFT_POSITIONS, RIGHT_POSITIONS = "l_text_pos_embeddings.weight", "r_text_pos_embeddings.weight"
HEAD = "to_logits.1"
_MASK = re.compile(r"(?:transformer\.)?(row_mask|col_mask|conv_mask|last_conv_mask)")
_OUTSIDE = {
    "final_norm": "transformer.final_layernorm",
    "head_norm": "to_logits.0",
    "embedding.grid_rows": "image_row_embeddings",
    "embedding.grid_columns": "image_col_embeddings",
}
_IN_A_LAYER = {
    "attention_input_norm": "input_layernorm",
    "attention_output_norm": "before_first_addition_layernorm",
    "mlp_input_norm": "post_attention_layernorm",
    "mlp_output_norm": "before_second_addition_layernorm",
    "attention.query_key_value": "attention.query_key_value",
    "attention.output": "attention.dense",
    "mlp.inner": "mlp.dense_h_to_4h",
    "mlp.output": "mlp.dense_4h_to_h",
}
_OUR_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")
_LAYER = re.compile(r"transformer\.layers\.(\d+)\..+")


def is_rudalle(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have most of the names by which ruDALL-E and RuDOLPH are known."""
    return len({TEXT, CODES, ROWS, COLUMNS} & tensors.keys()) > 1


def their_name(name: str) -> str | None:
    """Return the name of a tensor that both layouts have as it is; None for tables and head, which are put together."""
    module, _, kind = name.rpartition(".")
    if match := _OUR_LAYER.fullmatch(module):
        return f"transformer.layers.{match[1]}.{_IN_A_LAYER[match[2]]}.{kind}"
    return f"{_OUTSIDE[module]}.{kind}" if module in _OUTSIDE else None


def split_masks(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of a checkpoint, and the masks beside them by their short name."""
    masks = {match[1]: tensor for name, tensor in tensors.items() if (match := _MASK.fullmatch(name))}
    weights = {name: tensor for name, tensor in tensors.items() if not _MASK.fullmatch(name)}
    return weights, masks


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of a checkpoint, and what they do not tell.

    Args:
        num_layers: transformer blocks.
        width: of the main branch.
        num_heads: attention heads.
        mlp_factor: inner width of the MLP, in units of `width`.
        num_texts: rows of the text embedding.
        num_codes: rows of the code embedding, special ones included.
        num_drawn_codes: codes of the image tokenizer.
        num_pieces: pieces of the text tokenizer.
        num_left: tokens of the text before the picture, as the checkpoint counts them.
        num_right: tokens of the text after the picture; None for ruDALL-E.
        side: rows and columns of codes.
        sequence: of ruDALL-E.
        kernels: sides of the squares of every fourth layer (None for ruDALL-E) and of the last.
    """

    num_layers: int
    width: int
    num_heads: int
    mlp_factor: int
    num_texts: int
    num_codes: int
    num_drawn_codes: int
    num_pieces: int
    num_left: int
    num_right: int | None
    side: int
    sequence: TextSequence
    kernels: tuple[int | None, int]

    @property
    def name(self) -> str:
        """The project."""
        return "ruDALL-E" if self.num_right is None else "RuDOLPH"

    @property
    def num_tokens(self) -> int:
        """Tokens of a sequence, as the checkpoint's masks count them."""
        return self.num_left + self.side**2 + (self.num_right or 0)

    @property
    def has_special_pieces(self) -> bool:
        """Whether texts begin with a special piece."""
        return self.num_right is not None and self.vocabulary.num_special_pieces > _RIGHT_OF_IMAGE

    @property
    def vocabulary(self) -> Vocabulary:
        """Token ids."""
        return Vocabulary(
            num_image_codes=self.num_drawn_codes,
            num_text_pieces=self.num_pieces,
            num_special_pieces=self.num_texts - self.num_pieces - self.num_left,
            num_pads=self.num_left,
            num_special_codes=self.num_codes - self.num_drawn_codes,
        )

    @property
    def template(self) -> PaddedTextTemplate:
        """Token order of drawing."""
        is_longer = self.num_right is None and self.sequence == "v2"
        opening = (START_PIECE, START_PIECE) if is_longer else (START_PIECE,)
        if self.has_special_pieces:
            opening = (START_PIECE, self.num_pieces + _LEFT_TO_IMAGE)
        num_text_tokens = self.num_left + is_longer
        # RuDOLPH cuts a long text before its end, ruDALL-E after it.
        kept_end = 0 if self.num_right is None else 1
        return PaddedTextTemplate(
            vocabulary=self.vocabulary,
            grid_rows=self.side,
            grid_columns=self.side,
            max_text_pieces=num_text_tokens - len(opening) - kept_end,
            image_positions="fixed",
            num_text_tokens=num_text_tokens,
            opening=opening,
            end_piece=END_PIECE,
            first_code_position=self.num_left + 1,
        )

    @property
    def caption_template(self) -> RightTextTemplate | None:
        """Token order of captions; None if there is no text after the picture."""
        if self.num_right is None:
            return None
        left: tuple[int, ...] = ()
        opening: tuple[int, ...] = (START_PIECE,)
        if self.has_special_pieces:
            left = (START_PIECE, self.num_pieces + _LEFT_TO_TEXT, END_PIECE)
            opening = (START_PIECE, self.num_pieces + _RIGHT_OF_IMAGE)
        return RightTextTemplate(
            vocabulary=self.vocabulary,
            grid_rows=self.side,
            grid_columns=self.side,
            max_text_pieces=self.num_right - len(opening),
            num_left_tokens=self.num_left,
            left=left,
            opening=opening,
            end_piece=END_PIECE,
            unwritten_pieces=(PADDING_PIECE, UNKNOWN_PIECE, START_PIECE),
            first_code_position=self.num_left + 1,
            first_right_position=self.num_left + 1 + self.side**2,
        )

    @property
    def config(self) -> TransformerConfig:
        """Shape of the transformer."""
        between, last = self.kernels
        masks, kernel_sizes = masks_by_layer(self.num_layers, last, between)
        return TransformerConfig(
            num_layers=self.num_layers,
            hidden_size=self.width,
            num_heads=self.num_heads,
            vocabulary_size=self.vocabulary.size,
            num_positions=self.num_left
            + 1
            + self.side**2
            + (0 if self.num_right is None else self.num_right + 1),
            mlp_factor=self.mlp_factor,
            norm_scope="none",
            attention_pattern="grid",
            position_table="rows_and_columns",
            grid=GridConfig(
                num_rows=self.side,
                num_columns=self.side,
                first_place=self.num_left,
                first_position=self.num_left + 1,
                masks=masks,
                kernel_sizes=kernel_sizes,
                wraps=self.num_right is None and self.sequence == "v2",
            ),
            head="own",
        )

    def check_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Compare the masks in a checkpoint with those of the layers.

        Raises:
            CogViewError: a mask differs.
        """
        grid = self.config.grid
        for name, layer in (("row_mask", 0), ("col_mask", 1), ("conv_mask", 3), ("last_conv_mask", -1)):
            layer = (
                self.num_layers - 1
                if layer < 0 or (name == "conv_mask" and self.num_right is None)
                else layer
            )
            mask = masks.get(name)
            if mask is None or layer >= self.num_layers:
                continue
            if not _is_mask(mask, LayerGrid.of(grid, layer), self.num_tokens):
                raise CogViewError(f"{name} is not that of {self.name}'s layer {layer}; the file is damaged")


def _is_mask(mask: Tensor, layer: LayerGrid, num: int) -> bool:
    """Return whether a stored mask shows what a layer's does, for the first places."""
    is_plain = mask.layout == torch.strided and not mask.is_meta
    if not is_plain or mask.ndim != 2 or min(mask.shape) < num:
        return False
    return torch.equal(mask[:num, :num] != 0, layer.mask(num))


def layout_of(
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    *,
    num_heads: int | None = None,
    sequence: TextSequence | None = None,
    kernel_sizes: tuple[int, int] | None = None,
    num_pieces: int | None = None,
    num_codes: int | None = None,
) -> Layout:
    """Return the layout of a checkpoint.

    Args:
        weights: by name.
        masks: that the checkpoint has beside its weights, by name.
        num_heads: attention heads; by default those of the published models of this width.
        sequence: of ruDALL-E; by default told from the masks.
        kernel_sizes: RuDOLPH's squares of every fourth and of the last layer; by default told from the masks, or those
            of the published models of this width.
        num_pieces: of the text tokenizer; by default that of the published models.
        num_codes: of the image tokenizer; by default that of the published models.

    Raises:
        CogViewError: a tensor is missing, or the sizes do not fit together.
        UsageError: something has to be told.
    """
    is_rudolph = RIGHT_POSITIONS in weights
    num_texts, width = shape_of(weights, TEXT, 2)
    all_codes, _ = shape_of(weights, CODES, 2)
    num_left = shape_of(weights, LEFT_POSITIONS if is_rudolph else TEXT_POSITIONS, 2)[0] - 1
    num_right = shape_of(weights, RIGHT_POSITIONS, 2)[0] - 1 if is_rudolph else None
    inner, _ = shape_of(weights, "transformer.layers.0.mlp.dense_h_to_4h.weight", 2)
    num_layers = len({match[1] for name in weights if (match := _LAYER.fullmatch(name))})
    for layer in range(num_layers):  # before many are built
        for module in _IN_A_LAYER.values():
            shape_of(weights, f"transformer.layers.{layer}.{module}.bias", 1)
    side = shape_of(weights, ROWS, 2)[0]
    all_pieces = num_texts - num_left
    published_pieces, published_codes = (NUM_PIECES, NUM_CODES) if is_rudolph else (all_pieces, all_codes)
    num_pieces = min(published_pieces, all_pieces) if num_pieces is None else num_pieces
    num_codes = min(published_codes, all_codes) if num_codes is None else num_codes
    if inner % width or num_left < 1 or all_pieces < 1:
        raise CogViewError(
            f"{num_texts} texts, {num_left} text positions and an MLP of {inner} channels do not fit together; "
            f"{INCOMPLETE}"
        )
    for what, number, rows, published in (
        ("text tokenizer has {} pieces", num_pieces, all_pieces, published_pieces),
        ("image tokenizer has {} codes", num_codes, all_codes, published_codes),
    ):
        if number < 1 or not _fits(number, rows, published):
            raise CogViewError(
                f"the {what.format(number)}, and the transformer {rows}: give the tokenizer that it learnt with"
            )
    if num_heads is None and width not in _HEADS:
        raise UsageError(f"no published model has width {width}: give --num-heads")
    num_heads = _HEADS[width] if num_heads is None else num_heads
    if num_heads < 1 or width % num_heads:
        raise UsageError(f"width {width} is no multiple of --num-heads {num_heads}")

    layout = Layout(
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        mlp_factor=inner // width,
        num_texts=num_texts,
        num_codes=all_codes,
        num_drawn_codes=num_codes,
        num_pieces=num_pieces,
        num_left=num_left,
        num_right=num_right,
        side=side,
        sequence="v3",
        kernels=(None, _LAST_KERNEL),
    )
    try:
        _ = layout.config, layout.template, layout.caption_template
    except UsageError as error:  # nobody gave these numbers but the file
        raise CogViewError(f"its sizes do not fit together ({error}); {INCOMPLETE}") from error
    if is_rudolph:
        if sequence is not None:
            raise UsageError("--sequence is for ruDALL-E, and this is RuDOLPH: leave it out")
        return replace(layout, kernels=_rudolph_kernels(layout, masks, kernel_sizes))
    if kernel_sizes is not None:
        raise UsageError("--kernel-sizes is for RuDOLPH, and this is ruDALL-E: leave it out")
    return replace(layout, sequence=_rudalle_sequence(layout, masks, sequence))


def _fits(num: int, num_rows: int, published: int) -> bool:
    """Return whether a tokenizer's pieces or codes can be those of an embedding.

    Only RuDOLPH has special ones beside them.

    Args:
        num: of the tokenizer.
        num_rows: of the embedding, special ones included.
        published: of the published models' tokenizer.
    """
    return num in (num_rows, min(num_rows, published)) or num < num_rows < published


def _rudalle_sequence(
    layout: Layout, masks: Mapping[str, Tensor], sequence: TextSequence | None
) -> TextSequence:
    """Return the token order of ruDALL-E, whose masks tell it: squares of cells wrap around in v2."""
    known: list[TextSequence] = ["v3", "v2"]
    if "conv_mask" in masks:
        known = [each for each in known if _is_square(masks["conv_mask"], replace(layout, sequence=each))]
    if not known:
        raise CogViewError("conv_mask is neither that of v2 nor that of v3; the file is damaged")
    if sequence is None and len(known) > 1:
        raise UsageError(
            "the weights do not tell their sequence: give --sequence v3 for Malevich v3, Surrealist and Kandinsky, or "
            "v2 for Malevich v2 and Emojich"
        )
    if sequence is not None and sequence not in known:
        raise UsageError(
            f"--sequence is {sequence}, and the file's masks are those of {known[0]}: leave it out"
        )
    return sequence or known[0]


def _is_square(mask: Tensor, layout: Layout, kernel_size: int = _LAST_KERNEL) -> bool:
    """Return whether a mask is that of squares of cells."""
    grid = replace(layout.config.grid, masks=("convolution",), kernel_sizes=(kernel_size,))
    return _is_mask(mask, LayerGrid(grid=grid), layout.num_tokens)


def _rudolph_kernels(
    layout: Layout, masks: Mapping[str, Tensor], kernel_sizes: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the sizes of RuDOLPH's squares."""
    sizes = kernel_sizes or _KERNELS.get(layout.width)
    told = [
        next((size for size in range(1, 2 * layout.side, 2) if _is_square(masks[name], layout, size)), 0)
        for name in ("conv_mask", "last_conv_mask")
        if name in masks
    ]
    if len(told) == 2:
        if not all(told):
            raise CogViewError("conv_mask or last_conv_mask shows no squares of cells; the file is damaged")
        if kernel_sizes is not None and kernel_sizes != tuple(told):
            raise UsageError(
                f"--kernel-sizes is {kernel_sizes}, and the file's masks tell {tuple(told)}: leave it out"
            )
        sizes = told[0], told[1]
    if sizes is None:
        raise UsageError(
            f"no published RuDOLPH has width {layout.width}: give --kernel-sizes, for instance 7 9"
        )
    if not all(1 <= size <= 2 * layout.side and size % 2 for size in sizes):
        raise UsageError(f"--kernel-sizes must be odd and at most {2 * layout.side - 1}, got {sizes}")
    return sizes
