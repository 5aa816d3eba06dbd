"""Training task of stage 2: next-token prediction of text and picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.sequence.template import Codes, Pieces, SequenceTemplate, TextToImageTemplate, TokenBatch
from cogview.training.config import TokenLossConfig
from cogview.training.flops import flops_per_token
from cogview.training.task import Batch, Mean, Metrics, Scalars
from cogview.training.telemetry import largest_values
from cogview.training.token_loss import token_losses
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import count_text, keys_seen


@runtime_checkable
class Batches(Protocol):
    """Source of each step's sequences, such as `cogview.data.loader.TokenBatches` on token shards."""

    @property
    def template(self) -> SequenceTemplate:
        """Token order of the sequences."""
        ...

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step, a function of the step alone."""
        ...


class TransformerTask:
    """Training task of a transformer on sequences.

    Args:
        transformer: to train.
        batches: sequences of each step.
        config: of the loss.
    """

    def __init__(self, transformer: Transformer, batches: Batches, config: TokenLossConfig) -> None:
        self.module = transformer
        self.channels_last = False
        self.config = config
        self._batches = batches
        vocabulary = batches.template.vocabulary
        legal = config.normaliser == "legal"
        self._image_rows = vocabulary.image_codes if legal else None
        self._text_rows = range(vocabulary.text_pieces.start, vocabulary.num_tokens) if legal else None
        self._first_text_target = vocabulary.text_pieces.start
        self._padding = vocabulary.separator("PAD")
        self._max_text_targets = batches.template.max_text_targets

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, a function of the seed and the step alone.

        Beside tokens and positions [b t], it holds each target and the place in the row of the token before it: image
        [b k], text [b n]. Text rows are padded to the longest possible, with weight 0, so that a compiled step sees one
        shape.
        """
        batch = self._batches.batch(step)
        num_rows = len(batch.tokens)
        image_places = np.nonzero(batch.image_mask)[1].reshape(num_rows, -1)
        # The places of text targets come first, in order, then padding.
        text_places = np.argsort(~batch.text_mask, axis=1, kind="stable")[:, : self._max_text_targets]
        text_weights = np.take_along_axis(batch.text_mask, text_places, axis=1)
        text_targets = np.take_along_axis(batch.targets, text_places, axis=1)
        text_targets = np.where(text_weights, text_targets, self._first_text_target)
        arrays = {
            "tokens": batch.tokens,
            "positions": batch.positions,
            "image_places": image_places,
            "image_targets": np.take_along_axis(batch.targets, image_places, axis=1),
            "text_places": text_places,
            "text_targets": text_targets,
            "text_weights": text_weights.astype(np.float32),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def num_items(self, batch: Batch) -> tuple[float, str]:
        """Return the weight of all targets: their number, if text weighs as much as image."""
        text = self.config.text_weight * float(batch["text_weights"].sum())
        return batch["image_targets"].numel() + text, "tokens"

    def work(self, batch: Batch) -> dict[str, float]:
        """Return the number of targets, and the operations of all tokens, with or without a target."""
        image, text = float(batch["image_targets"].numel()), float(batch["text_weights"].sum())
        others = float((batch["tokens"] != self._padding).sum()) - image - text
        config, length = self.module.config, batch["tokens"].shape[1]
        num_keys = None
        if config.attention_pattern == "three_region":
            regions, places = config.three_region, torch.arange(length, device=batch["tokens"].device)
            num_text = count_text(batch["tokens"], regions.image_start_token)
            num_keys = float(keys_seen(places, num_text, regions).mean())
        flops = sum(
            num
            * flops_per_token(config, length, config.vocabulary_size if rows is None else len(rows), num_keys)
            for num, rows in ((image, self._image_rows), (text, self._text_rows), (others, range(0)))
        )
        return {"tokens": image + text, "flops": flops}

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the mean loss of all targets in nats, and the means of text and image without z-loss.

        A kind without targets has no mean. A batch without targets has the loss 0.
        """
        hidden = self.module.hidden_states(batch["tokens"], batch["positions"])
        image_states = _states_at(hidden, batch["image_places"])
        text_states = _states_at(hidden, batch["text_places"])
        image_targets, text_targets = batch["image_targets"].flatten(), batch["text_targets"].flatten()
        text_weights, weight = batch["text_weights"].flatten(), self.config.text_weight
        image_weights = torch.ones_like(image_targets, dtype=torch.float32)
        if weight > 0 and self._image_rows is None:  # one softmax, so one gradient of the whole head
            total, nats, squares = self._losses(
                torch.cat([image_states, text_states]),
                torch.cat([image_targets, text_targets]),
                torch.cat([image_weights, text_weights * weight]),
                None,
            )
            image_nats, text_nats = nats[: len(image_targets)], nats[len(image_targets) :]
        else:
            total, image_nats, squares = self._losses(
                image_states, image_targets, image_weights, self._image_rows
            )
            with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
                text_total, text_nats, text_squares = self._losses(
                    text_states, text_targets, text_weights, self._text_rows
                )
            total, squares = total + weight * text_total, squares + weight * text_squares
        num_text = text_weights.sum()
        num_weighted = image_nats.numel() + weight * num_text
        metrics: Metrics = {}
        if image_nats.numel():
            metrics["image_loss_nats"] = Mean(image_nats.sum(), image_nats.numel())
        if text_nats.numel():
            metrics["text_loss_nats"] = Mean((text_nats * text_weights).sum(), num_text)
        if self.config.z_loss_weight:
            metrics["squared_log_normaliser"] = Mean(squares, num_weighted)
        return total / torch.where(num_weighted > 0, num_weighted, 1.0), metrics

    def _losses(
        self,
        states: Float[Tensor, "n d"],
        targets: Int64[Tensor, "n"],
        weights: Float[Tensor, "n"],
        rows: range | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n"], Float[Tensor, ""]]:
        """Return the weighted loss, the cross-entropies, and the weighted squared log-normalisers."""
        start = rows.start if rows is not None else 0
        table, bias = self.module.head(rows), self.module.head_bias(rows)
        if bias is not None:  # as one more column, whose state is 1
            table = torch.cat([table, bias[:, None]], dim=1)
            states = torch.cat([states, states.new_ones(len(states), 1)], dim=1)
        total, nats, normalisers = token_losses(
            states, table, targets - start, weights, self.config.z_loss_weight
        )
        return total, nats, (weights * normalisers.square()).sum()

    def telemetry(self, batch: Batch) -> Scalars:
        """Return the magnitudes of main branch and attention scores in a batch's first sequence."""
        return largest_values(self.module, batch["tokens"][:1], batch["positions"][:1])

    def advice(self, completed_steps: int, metrics: Mapping[str, float]) -> list[str]:
        """Return nothing: problems show in the losses."""
        return []

    def after_step(self, step: int) -> Scalars:
        """Do nothing: the transformer has no state beside its weights."""
        return {}


def _states_at(hidden: Float[Tensor, "b t d"], places: Int64[Tensor, "b k"]) -> Float[Tensor, "n d"]:
    """Return the states at the given places of each row, flattened."""
    return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1])).flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class _InOrder:
    """Batches of given pairs, each once; the last batch may be smaller."""

    template: TextToImageTemplate
    pairs: Sequence[tuple[Pieces, Codes]]
    batch_size: int

    def batch(self, step: int) -> TokenBatch:
        return self.template.batch(self.pairs[step * self.batch_size : (step + 1) * self.batch_size])


@torch.inference_mode()
def evaluate_losses(
    transformer: Transformer,
    template: TextToImageTemplate,
    pairs: Sequence[tuple[Pieces, Codes]],
    batch_size: int = 16,
    config: TokenLossConfig | None = None,
) -> dict[str, float]:
    """Measure a transformer's losses on held-out text and pictures.

    Args:
        transformer: in evaluation mode.
        template: token order.
        pairs: (pieces, codes) of held-out pictures, at least one.
        batch_size: pairs per batch.
        config: of the loss; by default over legal ids.

    Returns:
        `text_loss_nats` and `image_loss_nats`, means over all targets of their kind, and `loss`, their weighted sum.
    """
    config = config or TokenLossConfig(normaliser="legal")
    batches = _InOrder(template=template, pairs=pairs, batch_size=batch_size)
    task = TransformerTask(transformer, batches, config)
    sums = {f"{kind}_loss_nats": np.zeros(2) for kind in ("text", "image")}
    for step in range(-(-len(pairs) // batch_size)):
        batch = {name: tensor.to(transformer.device) for name, tensor in task.batch(step).items()}
        for name, mean in task.loss(batch)[1].items():
            if name in sums:
                sums[name] += [float(mean.total), float(mean.weight)]
    sums["loss"] = config.text_weight * sums["text_loss_nats"] + sums["image_loss_nats"]
    return {name: float(total / weight) for name, (total, weight) in sums.items()}
