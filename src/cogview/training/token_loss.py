"""The cross-entropy of many targets over a large vocabulary, with little memory: no matrix of all logits is made."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHUNK_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Targets that are scored at a time. Each chunk reads and adds to the whole gradient of the table, which a GPU, fast at
products, would wait for with chunks as small as a CPU's."""

# What a probability times 1 is multiplied by while it is fp16, so that those down to 1e-10 are not rounded to zero.
_FP16_GAIN = 1024.0


def token_losses(
    hidden: Float[Tensor, "n d"],
    table: Float[Tensor, "v d"],
    targets: Int64[Tensor, "n"],
    weights: Float[Tensor, "n"],
    z_loss_weight: float = 0.0,
    chunk_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return the weighted sum of the targets' losses, and each target's cross-entropy and log-normaliser in nats.

    The loss of a target is its cross-entropy plus `z_loss_weight` times the square of its log-normaliser, which keeps
    logits from drifting together. It is exact: logits of one chunk are computed, turned into the gradient at once and
    forgotten, so that each is computed once and no two matrices [n, v] are ever held, nor one. Only the sum has a
    gradient. Targets of weight 0 have none, and where that costs no waiting (eager, on a CPU) are not scored: they
    have zeros.

    Under autocast the products are computed in its dtype; sums, exponentials and the table's gradient are fp32 always.

    Args:
        hidden: states of the tokens before the targets.
        table: a row for each id that the softmax is taken over.
        targets: rows of the table.
        weights: of the targets, best of about 1.
        z_loss_weight: of the squared log-normalisers; 0 leaves them out.
        chunk_tokens: targets at a time; `CHUNK_TOKENS` if None.
    """
    kind = hidden.device.type
    chunk_tokens = chunk_tokens or CHUNK_TOKENS.get(kind, 4096)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    has_gradient = torch.is_grad_enabled() and (hidden.requires_grad or table.requires_grad)
    compute: Callable[..., tuple[Tensor, Tensor, Tensor]] = _TokenLosses.apply
    settings = (z_loss_weight, chunk_tokens, dtype, has_gradient, has_gradient and table.requires_grad)
    if kind != "cpu" or torch.compiler.is_compiling() or bool((weights != 0).all()):
        return compute(hidden, table, targets, weights, *settings)
    counted = weights.nonzero().squeeze(1)
    total, *parts = compute(hidden[counted], table, targets[counted], weights[counted], *settings)
    nats, normalisers = (torch.zeros_like(weights).index_copy(0, counted, part) for part in parts)
    return total, nats, normalisers


class _TokenLosses(torch.autograd.Function):
    """Computes the gradient together with the loss, since the logits are at hand then."""

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
                if not table_has_gradient:  # an adapter learns beside a frozen one
                    continue
                product = _product(slopes.T, (states * (weight * size)).to(dtype))  # to the smaller factor
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
    """Return a product in fp32: in fp16, the sum over many tokens could overflow, and that over few become zero."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    if a.dtype == torch.float16:  # a CPU's products of fp16 are slower still
        return a.float() @ b.float()
    return (a @ b).float()
