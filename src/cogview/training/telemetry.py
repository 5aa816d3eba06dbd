"""Magnitudes inside a transformer, by layer."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cogview.training.task import Scalars
from cogview.transformer.attention import CausalSelfAttention, Pattern, seen_keys
from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.model import Transformer

NUM_QUERIES = 64


@torch.no_grad()
def largest_values(
    transformer: Transformer, tokens: Int[Tensor, "b t"], positions: Int[Tensor, "b t"]
) -> Scalars:
    """Return `main_branch_max/LAYER`, the largest |x| after each block, and `attention_score_max/LAYER`.

    A score is q k / sqrt(e), before the softmax. Fused kernels hide scores, so they are computed here for `NUM_QUERIES`
    queries spread over the sequence against all earlier keys; the result is at most the true maximum. In sparse
    attention, unseen keys do not count, pivots are those of evaluation, and their weights' effect on scores is left
    out. The sequences pass through the transformer again, without dropout, and eagerly except with three regions:
    eager FlexAttention would make all scores.

    Args:
        transformer: in its training precision.
        tokens: of few sequences.
        positions: of the tokens.

    Paper: 2.4, the two values that overflow.
    """
    found: Scalars = {}
    hooks = []
    was_training = transformer.training
    for number, block in enumerate(transformer.blocks):
        layer = f"{number:02d}"
        hooks += [
            block.register_forward_hook(partial(_note_output, found, f"main_branch_max/{layer}")),
            block.get_submodule("attention").register_forward_pre_hook(
                partial(_note_scores, found, f"attention_score_max/{layer}")
            ),
        ]
    is_eager = transformer.config.attention_pattern != "three_region"
    try:
        transformer.eval()
        with torch.compiler.set_stance("force_eager" if is_eager else "default"):
            transformer.hidden_states(tokens, positions)
    finally:
        transformer.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def largest_score(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h t e"],
    pattern: Pattern = None,
    config: ThreeRegionConfig | None = None,
) -> Float[Tensor, ""]:
    """Return the largest |q k| / sqrt(e) of queries spread over a sequence, in float32.

    Args:
        query: of all positions.
        key: of all positions.
        pattern: what is seen in sparse attention.
        config: of three-region attention.
    """
    t = query.shape[2]
    chosen = torch.linspace(0, t - 1, min(t, NUM_QUERIES), device=query.device).round().long()
    scores = query[:, :, chosen].float() @ key.float().mT / query.shape[-1] ** 0.5
    seen = seen_keys(chosen, t, pattern, config)[:, None]
    return scores.abs().where(seen, 0.0).amax()


def _note_output(found: Scalars, name: str, block: nn.Module, inputs: Any, output: Tensor) -> None:
    found[name] = output.abs().amax().float()


def _note_scores(found: Scalars, name: str, attention: CausalSelfAttention, inputs: tuple[Any, ...]) -> None:
    x, _, pattern = inputs
    query, key, _ = attention.heads(x)
    with torch.autocast(query.device.type, enabled=False):
        found[name] = largest_score(query, key, pattern, attention.config.three_region)
