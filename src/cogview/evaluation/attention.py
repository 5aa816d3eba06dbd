"""Attention maps of each layer and head of a transformer over a picture and its text.

Letters of the shapes: l layers, h heads, k codes of the picture, p tokens before them, n pieces, q chosen codes, r s
rows and columns, t tokens.

Paper: appendix C.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.sequence.template import Codes, Pieces, TextToImageTemplate, TokenKind, TokenSequence
from cogview.transformer.attention import CausalSelfAttention, Pattern, seen_keys
from cogview.transformer.model import Transformer

_QUERIES_AT_ONCE = 64
"""Queries whose scores are in memory at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMaps:
    """Attention weights and scores of one picture by layer and head, in float32 on the CPU.

    A code's weights are those of the token before it, from whose state it is predicted. They sum to 1 over
    `over_prefix` and `over_picture`.

    Args:
        over_prefix: each code's weights on the tokens before the picture: pieces, and separators or pads.
        pieces: where the pieces of the text are among these tokens.
        over_picture: the chosen codes' weights on the codes of the picture; 0 from the code itself on.
        places: row and column of the chosen codes.
        largest_scores: largest |q k| / sqrt(e) over all tokens before the last code and the keys that they see.
        mean_absolute_scores: mean of the same.
    """

    over_prefix: Float[Tensor, "l h k p"]
    pieces: range
    over_picture: Float[Tensor, "l h q r s"]
    places: tuple[tuple[int, int], ...]
    largest_scores: Float[Tensor, "l h"]
    mean_absolute_scores: Float[Tensor, "l h"]

    @property
    def over_text(self) -> Float[Tensor, "l h k n"]:
        """Each code's weights on the pieces."""
        return self.over_prefix[..., self.pieces.start : self.pieces.stop]

    @property
    def text_share(self) -> Float[Tensor, "l h"]:
        """Share of the weights on pieces, mean over codes."""
        return self.over_text.sum(-1).mean(-1)

    @property
    def separator_share(self) -> Float[Tensor, "l h"]:
        """Share of the weights on the separators or pads before the picture, mean over codes."""
        others = [place for place in range(self.over_prefix.shape[-1]) if place not in self.pieces]
        return self.over_prefix[..., others].sum(-1).mean(-1)

    @property
    def picture_share(self) -> Float[Tensor, "l h"]:
        """Share of the weights on earlier codes, mean over codes."""
        return 1 - self.over_prefix.sum(-1).mean(-1)


def check_places(template: TextToImageTemplate, places: Sequence[tuple[int, int]]) -> None:
    """Check that rows and columns lie in the picture's grid of codes.

    Raises:
        UsageError: one lies outside.
    """
    rows, columns = template.grid_rows, template.grid_columns
    for row, column in places:
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(
                f"row {row}, column {column} lies outside the picture's {rows} x {columns} codes: give a row from 0 to "
                f"{rows - 1} and a column from 0 to {columns - 1}"
            )


@torch.no_grad()
def attention_maps(
    transformer: Transformer,
    template: TextToImageTemplate,
    pieces: Pieces,
    codes: Codes | Tensor,
    places: Sequence[tuple[int, int]] | None = None,
) -> AttentionMaps:
    """Compute the attention maps of a transformer over a text and its picture.

    One forward pass, in which each layer also attends to unit vectors instead of its values, in float32. The results
    are the layer's weights, for any attention mask, and memory holds only a few queries' scores and the maps.

    Args:
        transformer: trained on `template`, with or without an adapter.
        template: builds the sequence.
        pieces: pieces of the text; clipped if too long.
        codes: codes of the picture, [r s].
        places: rows and columns, from 0, of the codes whose maps over the picture are kept; all by default, which are
            layers x heads x codes x codes numbers: 7.5 GiB for the paper's model.

    Raises:
        UsageError: the text has no pieces, or a place lies outside the grid.
        CogViewError: codes or pieces do not fit the template, or weights are not finite.

    Paper: appendix C.
    """
    if not len(pieces):
        raise UsageError("the text has no pieces, so that there is nothing to attend to; give a text")
    if places is None:
        places = [(row, column) for row, column in np.ndindex(template.grid_rows, template.grid_columns)]
    check_places(template, places)
    sequence = template.build(pieces, codes.cpu().numpy() if isinstance(codes, Tensor) else codes)
    prefix = template.prefix(pieces)
    num_drawn = len(prefix.tokens) + template.num_codes_per_image - 1  # no code attends to the last one
    tokens, positions = (
        torch.from_numpy(array[None, :num_drawn]).to(transformer.device)
        for array in (sequence.tokens, sequence.positions)
    )
    maps = _empty_maps(transformer, template, prefix, places)
    was_training = transformer.training
    hooks = [
        block.get_submodule("attention").register_forward_pre_hook(partial(_look_into, maps, layer))
        for layer, block in enumerate(transformer.blocks)
    ]
    try:
        transformer.eval().hidden_states(tokens, positions)
    finally:
        transformer.train(was_training)
        for hook in hooks:
            hook.remove()
    if not torch.isfinite(maps.over_prefix).all():
        raise CogViewError(
            "the transformer's attention is infinite or NaN: its weights are damaged, or too large for this dtype; "
            "load it as float32, or copy or export the model again"
        )
    return maps


def _empty_maps(
    transformer: Transformer,
    template: TextToImageTemplate,
    prefix: TokenSequence,
    places: Sequence[tuple[int, int]],
) -> AttentionMaps:
    """Return the maps of a picture, filled with zeros."""
    by_head = (transformer.config.num_layers, transformer.config.num_heads)
    num_codes = template.num_codes_per_image
    of_text = np.flatnonzero(prefix.kind == TokenKind.TEXT)
    return AttentionMaps(
        over_prefix=torch.zeros(*by_head, num_codes, len(prefix.tokens)),
        pieces=range(int(of_text[0]), int(of_text[-1]) + 1),
        over_picture=torch.zeros(*by_head, len(places), template.grid_rows, template.grid_columns),
        places=tuple(places),
        largest_scores=torch.zeros(by_head),
        mean_absolute_scores=torch.zeros(by_head),
    )


def _look_into(
    maps: AttentionMaps, layer: int, attention: CausalSelfAttention, inputs: tuple[Any, ...]
) -> None:
    """Write a layer's weights and scores into the maps."""
    x, _, pattern = inputs
    query, key, _ = (each.float() for each in attention.heads(x))
    num_prefix = maps.over_prefix.shape[3]
    columns = maps.over_picture.shape[4]
    chosen = torch.tensor([row * columns + column for row, column in maps.places], dtype=torch.int64)
    over_picture = maps.over_picture[layer].flatten(2)
    num_tokens, width = query.shape[2:]
    for start in range(0, num_tokens, width):
        units = key.new_zeros(num_tokens, width)
        units[start : start + width].fill_diagonal_(1.0)
        seen = attention.attend(query, key, units.expand_as(key), pattern)[0, :, num_prefix - 1 :]
        weights = seen[..., : num_tokens - start].cpu()
        num_of_prefix = min(max(num_prefix - start, 0), weights.shape[2])
        maps.over_prefix[layer, ..., start : start + num_of_prefix] = weights[..., :num_of_prefix]
        first = start + num_of_prefix - num_prefix
        of_picture = weights[:, chosen, num_of_prefix:]
        over_picture[..., first : first + of_picture.shape[2]] = of_picture
    scales = _score_scales(query[0], key[0], pattern, attention)
    maps.largest_scores[layer], maps.mean_absolute_scores[layer] = (each.cpu() for each in scales)


def _score_scales(
    query: Float[Tensor, "h t e"],
    key: Float[Tensor, "h t e"],
    pattern: Pattern,
    attention: CausalSelfAttention,
) -> tuple[Float[Tensor, "h"], Float[Tensor, "h"]]:
    """Return each head's largest and mean |q k| / sqrt(e), over all queries and the keys that they see."""
    num_heads, num_tokens, width = query.shape
    largest, total = query.new_zeros(2, num_heads)
    num_seen = 0
    for first in range(0, num_tokens, _QUERIES_AT_ONCE):
        places = torch.arange(first, min(first + _QUERIES_AT_ONCE, num_tokens), device=key.device)
        scores = (query[:, places] @ key.mT).abs() / math.sqrt(width)
        (seen,) = seen_keys(places, num_tokens, pattern, attention.config.three_region)
        scores = scores.where(seen, 0.0)
        largest = torch.maximum(largest, scores.amax((1, 2)))
        total = total + scores.sum((1, 2))
        num_seen += int(seen.sum())
    return largest, total / num_seen


def score_table(maps: AttentionMaps) -> list[dict[str, float | int]]:
    """Return the scores and shares of weights of each layer and head."""
    figures = {
        "largest_score": maps.largest_scores,
        "mean_absolute_score": maps.mean_absolute_scores,
        "text_share": maps.text_share,
        "separator_share": maps.separator_share,
        "picture_share": maps.picture_share,
    }
    return [
        {"layer": layer, "head": head, **{name: float(each[layer, head]) for name, each in figures.items()}}
        for layer, head in np.ndindex(*maps.largest_scores.shape)
    ]


def score_lines(table: Sequence[Mapping[str, float | int]]) -> list[str]:
    """Format the rows of `score_table` as lines; the last compares the heads."""
    lines = ["layer  head  largest score  mean |score|    text  separators  picture"]
    for each in table:
        shares = (each["text_share"], each["separator_share"], each["picture_share"])
        text, separators, picture = (f"{100 * share:.1f} %" for share in shares)
        lines.append(
            f"{each['layer']:>5}  {each['head']:>4}  {each['largest_score']:>13.2f}  "
            f"{each['mean_absolute_score']:>12.2f}  {text:>6}  {separators:>10}  {picture:>7}"
        )
    return [*lines, "", comparison_of_heads(table)]


def comparison_of_heads(table: Sequence[Mapping[str, float | int]]) -> str:
    """Return one line with the heads of the smallest and largest scores."""
    least, most = (choose(table, key=lambda each: each["largest_score"]) for choose in (min, max))
    where = [
        f"{each['largest_score']:.2f} (layer {each['layer']}, head {each['head']})" for each in (least, most)
    ]
    return f"largest scores by head: from {where[0]} to {where[1]}"
