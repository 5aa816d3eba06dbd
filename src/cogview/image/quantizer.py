"""From vectors to the nearest codes: the codebook and how it learns.

A quantizer owns its codebook. The model asks it for codes and vectors; the training task tells it about each step's
vectors through `update`, outside the forward pass, so that the forward pass stays a pure function that can be compiled.
Everything a quantizer learns lies in buffers or parameters, hence in checkpoints.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.image.config import VQVAEConfig

# So many distances are held at a time (16 MiB in fp32): small enough for a processor's cache.
DISTANCES_AT_A_TIME = 2**22
SEEDING_ROUNDS = 32
LLOYD_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What quantizing a grid of vectors gives.

    Args:
        vectors: the codes' vectors; gradients pass straight through to the encoder.
        codes: index of the nearest codebook entry of each vector.
        loss: what the quantizer adds to the reconstruction loss.
    """

    vectors: Float[Tensor, "b d r s"]
    codes: Int64[Tensor, "b r s"]
    loss: Float[Tensor, ""]


@runtime_checkable
class Quantizer(Protocol):
    """One of the ways to train a codebook.

    Paper: section 2.1 and figure 2, which compare four.
    """

    def quantize(self, vectors: Float[Tensor, "b d r s"]) -> Quantized:
        """Replace each vector by its code's, for training."""

    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the nearest code of each vector."""

    def look_up(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b d r s"]:
        """Return the vectors of codes."""

    def update(
        self, vectors: Float[Tensor, "b d r s"], codes: Int64[Tensor, "b r s"], step: int
    ) -> dict[str, Tensor]:
        """Learn from one step's encoder outputs and return metrics."""


class MovingAverageQuantizer(nn.Module):
    """Nearest-neighbour codes whose vectors are moving averages of the encoder outputs assigned to them.

    All of it runs in fp32, whatever autocast says: differences of squared distances are too fine for bf16.

    Differs from the paper: the codebook starts as a few Lloyd steps on encoder outputs, and codes that are hardly used
    move to badly served encoder outputs at a fixed interval; the paper says that initialisation decides, not which.

    Args:
        config: the tokenizer's configuration.

    Paper: section 2.1, method (c), the one that pretraining uses.
    """

    embed: Float[Tensor, "v d"]
    cluster_size: Float[Tensor, " v"]
    embed_avg: Float[Tensor, "v d"]
    is_initialised: Tensor

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        embed = torch.randn(config.num_codes, config.code_size)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.ones(config.num_codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("is_initialised", torch.tensor(False))

    def quantize(self, vectors: Float[Tensor, "b d r s"]) -> Quantized:
        """Replace each vector by its nearest code's; the gradient passes straight through.

        Until the codebook is initialised, the vectors pass as they are and the loss is zero.

        Args:
            vectors: the encoder's outputs.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            codes = self.nearest(vectors)
            # A tensor decides, not a Python bool: nothing is read back and compiled code has no branch.
            nearest = torch.where(self.is_initialised, self.look_up(codes), vectors.detach())
            commitment = (vectors - nearest).square().mean()
            return Quantized(
                vectors=vectors + (nearest - vectors).detach(),
                codes=codes,
                loss=self.config.commitment_weight * commitment,
            )

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the nearest code of each vector, the lowest index where two are equally near."""
        b, _, r, s = vectors.shape
        with torch.autocast(vectors.device.type, enabled=False):
            return nearest_codes(as_rows(vectors.float()), self.embed.float()).view(b, r, s)

    def look_up(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b d r s"]:
        """Return the vectors of codes."""
        return nn.functional.embedding(codes, self.embed).permute(0, 3, 1, 2)

    @torch.no_grad()
    def update(
        self, vectors: Float[Tensor, "b d r s"], codes: Int64[Tensor, "b r s"], step: int
    ) -> dict[str, Tensor]:
        """Move each code towards the mean of the vectors assigned to it; now and then revive unused codes.

        Args:
            vectors: the encoder's outputs of this step.
            codes: the codes that `quantize` gave them; ignored while the codebook is not initialised.
            step: the training step, from 0.

        Returns:
            `usage`, the share of codes that are not up for revival, and `perplexity` of the moving cluster sizes.
        """
        rows = as_rows(vectors.detach().float())
        if self.is_initialised:
            self._average(rows, codes.reshape(-1))
            interval = self.config.revival_every_steps
            if interval and step % interval == interval - 1:
                self._revive(rows, codes.reshape(-1))
        elif step >= self.config.codebook_start_step:
            self._initialise(rows)
        shares = self.cluster_size / self.cluster_size.sum()
        entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
        return {"usage": 1.0 - self._unused().float().mean(), "perplexity": entropy.exp()}

    def _average(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        sizes, sums = cluster_sums(rows, codes, self.config.num_codes)
        self.cluster_size.lerp_(sizes, 1.0 - self.config.decay)
        self.embed_avg.lerp_(sums, 1.0 - self.config.decay)
        total, epsilon = self.cluster_size.sum(), self.config.smoothing_epsilon
        smoothed = (self.cluster_size + epsilon) / (total + self.config.num_codes * epsilon) * total
        self.embed.copy_(self.embed_avg / smoothed[:, None])

    def _initialise(self, rows: Float[Tensor, "n d"]) -> None:
        """Lay the codebook into the vectors: spread a first draw, then a few Lloyd steps."""
        self.embed.copy_(spread_draw(rows, self.config.num_codes))
        for _ in range(LLOYD_STEPS):
            sizes, sums = cluster_sums(rows, nearest_codes(rows, self.embed), self.config.num_codes)
            means = sums / sizes.clamp_min(1.0)[:, None]
            self.embed.copy_(torch.where(sizes[:, None] > 0, means, self.embed))
        self.cluster_size.copy_(sizes.clamp_min(1.0))
        self.embed_avg.copy_(self.embed * self.cluster_size[:, None])
        self.is_initialised.fill_(True)

    def _unused(self) -> Tensor:
        return self.cluster_size < self.config.revival_threshold * self.cluster_size.mean()

    def _revive(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Move unused codes to vectors of this batch, drawn in proportion to their squared distance from their code.

        A plain draw would mostly hit flat background, which a picture has most of and which is served already.
        """
        unused = self._unused().nonzero()[:, 0][: len(rows)]
        if not len(unused):
            return
        errors = (rows - self.embed[codes]).square().sum(1)
        drawn = rows[draw_in_proportion(errors, len(unused))]
        # A short trial: if it stays unused, decay has halved this and it is up for revival again after 70 steps or so.
        size = 2.0 * self.config.revival_threshold * self.cluster_size.mean()
        self.embed[unused] = drawn
        self.embed_avg[unused] = drawn * size
        self.cluster_size[unused] = size


def as_rows(vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "n d"]:
    """Return the vectors of a batch of grids as rows, in the order of the codes."""
    return vectors.permute(0, 2, 3, 1).reshape(-1, vectors.shape[1])


def nearest_codes(rows: Float[Tensor, "n d"], embed: Float[Tensor, "v d"]) -> Int64[Tensor, " n"]:
    """Return the index of the nearest entry of `embed` for each row.

    |x - e|^2 without |x|^2, which is the same for all codes: one matrix product and one argmin.
    """
    norms = embed.square().sum(1)
    parts = torch.split(rows, max(1, DISTANCES_AT_A_TIME // len(embed)))
    return torch.cat([torch.addmm(norms, part, embed.T, alpha=-2.0).argmin(1) for part in parts])


def cluster_sums(
    rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"], num_codes: int
) -> tuple[Float[Tensor, " v"], Float[Tensor, "v d"]]:
    """Return how many rows each code has and their sum; no one-hot matrix of rows x codes is made."""
    sizes = torch.bincount(codes, minlength=num_codes).to(rows.dtype)
    sums = rows.new_zeros(num_codes, rows.shape[1]).index_add_(0, codes, rows)
    return sizes, sums


def draw_in_proportion(weights: Float[Tensor, " n"], num: int) -> Int64[Tensor, " k"]:
    """Draw different indices in proportion to their weights.

    Weights that are NaN or infinite count as zero. When training has failed, the loop says so at its next reading of
    the losses, in words that help; no draw before that may end the run with an error of PyTorch's.

    Args:
        weights: not negative; all may be zero, and are equal then.
        num: how many, at most as many as there are weights.
    """
    return torch.multinomial(weights.nan_to_num(nan=0.0, posinf=0.0) + 1e-12, num)


def spread_draw(rows: Float[Tensor, "n d"], num_codes: int) -> Float[Tensor, "v d"]:
    """Draw rows far from each other: in rounds, each in proportion to the squared distance from those drawn before.

    With fewer rows than codes, the rest are the same rows with a little noise (a hundredth of the deviation), so that
    no two codes are equal.
    """
    num_drawn = min(num_codes, len(rows))
    per_round = -(-num_drawn // SEEDING_ROUNDS)
    distances = (rows - rows.mean(0)).square().sum(1)
    drawn = rows[:0]
    while len(drawn) < num_drawn:
        indices = draw_in_proportion(distances, min(per_round, num_drawn - len(drawn)))
        drawn = torch.cat([drawn, rows[indices]])
        distances = (rows - drawn[nearest_codes(rows, drawn)]).square().sum(1)
    repeated = drawn[torch.arange(num_codes - num_drawn, device=rows.device) % num_drawn]
    noise = torch.randn_like(repeated) * (0.01 * rows.std() + 1e-6)
    return torch.cat([drawn, repeated + noise])
