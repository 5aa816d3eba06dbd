"""CapLoss: how badly a text fits a picture, by a transformer that writes texts after pictures.

Letters of the shapes: b sequences, k tokens of the picture, t tokens of the text with [ROI1] before it.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.errors import CogViewError, UsageError
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import Codes, Pieces
from cogview.transformer.cache import KeyValueCache
from cogview.transformer.model import Transformer

_TARGETS_AT_ONCE = 1024
"""Of which the logits are held at a time."""


@torch.inference_mode()
def caption_losses(
    transformer: Transformer,
    template: CaptionTemplate,
    pairs: Sequence[tuple[Pieces, Codes]],
    *,
    counts_end: bool = False,
    max_batch: int = 16,
) -> Float64[np.ndarray, "n"]:
    """Return CapLoss(x, t) = -(1/|t|) sum_i log p(t_i | x, t_<i) of each pair, in nats per piece.

    A picture stands before its texts, so it is read once for all of them. Only the text rows of the head are computed:
    p is over the pieces and the token that ends a text.

    Args:
        transformer: in evaluation mode; learnt `template`.
        template: puts the pairs in sequence.
        pairs: (pieces, codes): texts of at least one piece, clipped if too long, and pictures.
        counts_end: whether the token that ends a text is one of its t_i. The paper's t is the text, so it is not.
        max_batch: sequences at a time, which bounds the memory.

    Raises:
        UsageError: a text has no pieces, so that there is nothing to take the mean of.
        CogViewError: codes or pieces that the template does not have, or logits that are not finite.

    Paper: section 3.2.
    """
    for number, (pieces, _) in enumerate(pairs, start=1):
        if not len(pieces):
            raise UsageError(
                f"text {number} of {len(pairs)} has no pieces, and no loss: say what is to be seen"
            )
    sequences = [template.build(pieces, codes) for pieces, codes in pairs]
    pairs_of_picture: dict[bytes, list[int]] = defaultdict(list)
    for number, sequence in enumerate(sequences):
        pairs_of_picture[sequence.tokens[: template.num_prefix_tokens].tobytes()].append(number)
    groups = list(pairs_of_picture.values())
    losses = np.empty(len(pairs), dtype=np.float64)
    num_read = template.num_prefix_tokens - 1  # [ROI1] is the first token with a target
    for start in range(0, len(groups), max_batch):
        pictures = groups[start : start + max_batch]
        firsts = [sequences[numbers[0]] for numbers in pictures]
        held = KeyValueCache(
            transformer.config, len(pictures), num_read, _dtype(transformer), transformer.device
        )
        _extend(
            transformer,
            [each.tokens[:num_read] for each in firsts],
            [each.positions[:num_read] for each in firsts],
            held,
        )
        rows = [(row, number) for row, numbers in enumerate(pictures) for number in numbers]
        for first in range(0, len(rows), max_batch):
            part = rows[first : first + max_batch]
            texts = [sequences[number] for _, number in part]
            tokens = [each.tokens[num_read:] for each in texts]
            cache = _rows_of(held, [row for row, _ in part], max(map(len, tokens)), transformer)
            hidden = _extend(transformer, tokens, [each.positions[num_read:] for each in texts], cache)
            targets = [np.append(each[1:], template.end_token) for each in tokens]
            nats = _nats(transformer, template, hidden, targets)
            for (_, number), each in zip(part, nats, strict=True):
                counted = each if counts_end else each[:-1]
                losses[number] = counted.mean()
    if not np.isfinite(losses).all():
        raise CogViewError(
            "the captioning transformer's logits are infinite or NaN: its weights are damaged, or too large for this "
            "dtype; load it as float32, or copy or export the model again"
        )
    return losses


def _dtype(transformer: Transformer) -> torch.dtype:
    return transformer.embedding.tokens.weight.dtype


def _rows_of(held: KeyValueCache, rows: list[int], num_more: int, transformer: Transformer) -> KeyValueCache:
    """Return a cache whose sequences begin as some of those held, with room for more tokens."""
    num_tokens = held.length + num_more
    cache = KeyValueCache(transformer.config, len(rows), num_tokens, _dtype(transformer), transformer.device)
    cache.pairs[:, :, :, :, : held.length] = held.pairs[:, :, rows]
    cache.length = held.length
    return cache


def _extend(
    transformer: Transformer,
    tokens: Sequence[Int64[np.ndarray, "_"]],
    positions: Sequence[Int64[np.ndarray, "_"]],
    cache: KeyValueCache,
) -> Float[Tensor, "b t d"]:
    """Put tokens, the shorter sequences padded, behind those of a cache, and return their states."""
    width = max(map(len, tokens))

    def padded(parts: Sequence[Int64[np.ndarray, "_"]]) -> Int64[Tensor, "b t"]:
        whole = np.zeros((len(parts), width), dtype=np.int64)
        for row, part in enumerate(parts):
            whole[row, : len(part)] = part
        return torch.from_numpy(whole).to(transformer.device)

    return transformer.extend(padded(tokens), padded(positions), cache)


def _nats(
    transformer: Transformer,
    template: CaptionTemplate,
    hidden: Float[Tensor, "b t d"],
    targets: Sequence[Int64[np.ndarray, "_"]],
) -> list[Float64[np.ndarray, "_"]]:
    """Return what each target of each sequence costs, among the legal tokens."""
    legal = template.legal_tokens
    states = torch.cat([row[: len(part)] for row, part in zip(hidden, targets, strict=True)])
    wanted = torch.from_numpy(np.concatenate(targets) - legal.start).to(states.device)
    head = transformer.head(legal)
    nats = [
        F.cross_entropy(F.linear(some, head).float(), those, reduction="none").double().cpu()
        for some, those in zip(
            torch.split(states, _TARGETS_AT_ONCE), torch.split(wanted, _TARGETS_AT_ONCE), strict=True
        )
    ]
    return [part.numpy() for part in torch.split(torch.cat(nats), [len(part) for part in targets])]
