"""Chunked cross-entropy over a large vocabulary, without a matrix of all logits."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHUNK_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Targets per chunk. Each chunk updates the whole gradient of the table, so GPUs need larger chunks."""

# Scale of fp16 probabilities, so that those down to 1e-10 are not rounded to zero.
_FP16_GAIN = 1024.0


def token_losses(
    hidden: Float[Tensor, "n d"],
    table: Float[Tensor, "v d"],
    targets: Int64[Tensor, "n"],
    weights: Float[Tensor, "n"],
    z_loss_weight: float = 0.0,
    chunk_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return the weighted sum of losses, and each target's cross-entropy and log-normaliser in nats.

    A target's loss is its cross-entropy plus `z_loss_weight` times the squared log-normaliser. Each chunk's logits are
    computed once and turned into gradients at once, exactly. Only the sum is differentiable. Targets of weight 0 have
    no gradient; where it is free to know them (eager, on a CPU), they are skipped and get zeros.

    Under autocast, products are in its dtype; sums, exponentials and the table's gradient are always fp32.

    Args:
        hidden: states of the tokens before the targets.
        table: a row for each id of the softmax.
        targets: rows of the table.
        weights: of the targets, ideally about 1.
        z_loss_weight: of the squared log-normalisers; 0 leaves them out.
        chunk_tokens: targets per chunk; `CHUNK_TOKENS` if None.
    """
    kind = hidden.device.type
    chunk_tokens = chunk_tokens or CHUNK_TOKENS.get(kind, 4096)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    has_gradient = torch.is_grad_enabled() and (hidden.requires_grad or table.requires_grad)
    compute: Callable[..., tuple[Tensor, Tensor, Tensor]] = _TokenLosses.apply
    settings = (z_loss_weight, chunk_tokens, dtype, has_gradient, has_gradient and table.requires_grad)
    if kind != "cpu" or torch.compiler.is_compiling() or bool((weights != 0).all()):
        total, *parts = compute(hidden, table, targets, weights, *settings)
        # The compiler of PyTorch 2.11 takes what a function marks as not differentiable for differentiable.
        nats, normalisers = (part.detach() for part in parts)
        return total, nats, normalisers
    counted = weights.nonzero().squeeze(1)
    total, *parts = compute(hidden[counted], table, targets[counted], weights[counted], *settings)
    nats, normalisers = (torch.zeros_like(weights).index_copy(0, counted, part) for part in parts)
    return total, nats, normalisers


class _TokenLosses(torch.autograd.Function):
    """Computes the gradient together with the loss, while the logits are in memory."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        targets: Tensor,
        weights: Tensor,
        z_loss_weight: float,
        chunk_tokens: int,
        dtype: torch.dtype,
        has_gradient: bool,
        table_has_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_chunks = max(1, -(-hidden.shape[0] // chunk_tokens))
        gain = _FP16_GAIN if dtype == torch.float16 else 1.0
        rows = table.to(dtype)
        nats, normalisers, hidden_gradients = [], [], []
        table_gradient = None
        with torch.autocast(hidden.device.type, enabled=False):
            chunks = [
                whole.chunk(num_chunks) for whole in (hidden.to(dtype), targets[:, None], weights[:, None])
            ]
            for states, ids, weight in zip(*chunks, strict=True):
                logits = states @ rows.T
                chosen = logits.gather(1, ids).float()
                scores = torch.log_softmax(logits, dim=1, dtype=torch.float32)
                del logits
                nat = -scores.gather(1, ids)
                normaliser = chosen + nat
                nats.append(nat)
                normalisers.append(normaliser)
                if not has_gradient:
                    continue
                # d loss / d logits = softmax * (1 + 2 z normaliser) - onehot, in place of the scores, and divided by
                # a row's size where that is above 1: large normalisers would leave the range of fp16.
                slope = 1 + 2 * z_loss_weight * normaliser
                size = slope.abs().clamp(min=1)
                slopes = scores.exp_()
                if z_loss_weight or gain != 1.0:
                    slopes *= gain * slope / size
                slopes.scatter_add_(1, ids, -gain / size)
                slopes = slopes.to(dtype)
                hidden_gradients.append(_product(slopes, rows).mul_(size))
                if not table_has_gradient:  # an adapter trains beside a frozen table
                    continue
                product = _product(slopes.T, (states * (weight * size)).to(dtype))  # scale the smaller factor
                table_gradient = product if table_gradient is None else table_gradient.add_(product)
        nats_, normalisers_ = torch.cat(nats).squeeze(1), torch.cat(normalisers).squeeze(1)
        total = (weights * (nats_ + z_loss_weight * normalisers_.square())).sum()
        ctx.mark_non_differentiable(nats_, normalisers_)
        ctx.gain, ctx.dtypes = gain, (hidden.dtype, table.dtype)
        if has_gradient:
            ctx.save_for_backward(torch.cat(hidden_gradients), table_gradient, weights)
        return total, nats_, normalisers_

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, table_gradient, weights = ctx.saved_tensors
        factor = gradients[0] / ctx.gain
        of_hidden = (hidden_gradient * (weights * factor)[:, None]).to(ctx.dtypes[0])
        of_table = None if table_gradient is None else (table_gradient * factor).to(ctx.dtypes[1])
        return of_hidden, of_table, *([None] * 7)


def _product(a: Float[Tensor, "n k"], b: Float[Tensor, "k m"]) -> Float[Tensor, "n m"]:
    """Return a product in fp32: in fp16, large sums could overflow, and small ones underflow."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    if a.dtype == torch.float16:  # fp16 products are slower on a CPU
        return a.float() @ b.float()
    return (a @ b).float()
