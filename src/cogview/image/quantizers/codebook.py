"""Base class of quantizers: codebook, search, initialisation and revival of unused codes."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.initialisation import initial_codebook, sample_indices
from cogview.image.quantizers.nearest_code import as_rows, cluster_sums, nearest_codes
from cogview.image.quantizers.protocol import Quantized


class Codebook(nn.Module):
    """Codebook with nearest-neighbour codes and a straight-through gradient; subclasses train it.

    Runs in fp32 even under autocast: differences of squared distances are too small for bf16. Subclasses train the
    codebook by `_learn` from each step's vectors, by a loss, or both.

    Differs from the paper: by default the codebook starts from a few Lloyd steps on encoder outputs. Rarely used codes
    move to encoder outputs with large errors at a fixed interval. The paper calls initialisation decisive, but does not
    specify it.

    Args:
        config: the codebook's part of a tokenizer's configuration.
        is_learnt_by_gradient: whether the codebook is a parameter of the optimizer or a buffer.
    """

    embed: Float[Tensor, "v d"]
    cluster_size: Float[Tensor, " v"]
    is_initialised: Tensor

    def __init__(self, config: CodebookConfig, *, is_learnt_by_gradient: bool):
        super().__init__()
        self.config = config
        embed = torch.randn(config.num_codes, config.code_size)
        if is_learnt_by_gradient:
            self.embed = nn.Parameter(embed)
        else:
            self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.ones(config.num_codes))
        self.register_buffer("is_initialised", torch.tensor(config.codebook_initialisation == "random"))

    def quantize(self, vectors: Float[Tensor, "b d r s"]) -> Quantized:
        """Replace each vector by its nearest code's, with a straight-through gradient.

        Until the codebook is initialised, vectors are unchanged and the loss is zero.

        Args:
            vectors: the encoder's outputs.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = self._prepared(vectors)
            codes = self.nearest(vectors)
            # A tensor, not a Python bool: no synchronization, and no branch in compiled code.
            nearest = torch.where(self.is_initialised, self.look_up(codes), vectors.detach())
            return Quantized(
                vectors=vectors + (nearest - vectors).detach(), codes=codes, loss=self._loss(vectors, nearest)
            )

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the nearest code of each vector, the lowest index of equally near ones."""
        b, _, r, s = vectors.shape
        with torch.autocast(vectors.device.type, enabled=False):
            return nearest_codes(as_rows(self._prepared(vectors)), self._entries().float()).view(b, r, s)

    def look_up(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b d r s"]:
        """Return the vectors of codes."""
        return nn.functional.embedding(codes, self._entries()).permute(0, 3, 1, 2)

    @torch.no_grad()
    def update(
        self, vectors: Float[Tensor, "b d r s"], codes: Int64[Tensor, "b r s"], step: int
    ) -> dict[str, Tensor]:
        """Learn from a step's vectors, and revive unused codes at intervals.

        Args:
            vectors: the encoder's outputs of this step.
            codes: their codes; ignored while the codebook is not initialised.
            step: the training step, from 0.

        Returns:
            `usage`, the share of used codes, and `perplexity` of the moving cluster sizes.
        """
        rows, flat = as_rows(self._prepared(vectors.detach())), codes.reshape(-1)
        if self.is_initialised:
            self._learn(rows, flat)
            interval = self.config.revival_every_steps
            if interval and step % interval == interval - 1:
                self._revive(rows, flat)
        elif step >= self.config.codebook_start_step:
            embed, sizes = initial_codebook(rows, self.config.num_codes)
            self.embed.copy_(embed)
            self.cluster_size.copy_(sizes)
            self._sync_moved(torch.arange(self.config.num_codes, device=embed.device))
            self.is_initialised.fill_(True)
        shares = self.cluster_size / self.cluster_size.sum()
        entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
        return {"usage": 1.0 - self._unused().float().mean(), "perplexity": entropy.exp()}

    @torch.no_grad()
    def mark_initialised(self) -> None:
        """Mark the codebook as initialised after its inference weights were set."""
        self._sync_moved(torch.arange(self.config.num_codes, device=self.embed.device))
        self.is_initialised.fill_(True)

    def _prepared(self, vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "b d r s"]:
        """Return the encoder's outputs in the form that is compared with the entries."""
        return vectors.float()

    def _entries(self) -> Float[Tensor, "v d"]:
        """Return the codes' vectors in the form that the decoder gets."""
        return self.embed

    def _loss(
        self, vectors: Float[Tensor, "b d r s"], nearest: Float[Tensor, "b d r s"]
    ) -> Float[Tensor, ""]:
        """Return the commitment loss, which pulls the encoder's outputs to their codes."""
        return self.config.commitment_weight * (vectors - nearest.detach()).square().mean()

    def _learn(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Learn from a step's vectors; the base class updates the cluster sizes."""
        sizes, _ = cluster_sums(rows, codes, self.config.num_codes)
        self.cluster_size.lerp_(sizes, 1.0 - self.config.decay)

    def _sync_moved(self, codes: Int64[Tensor, " k"]) -> None:
        """Update further state of codes whose vectors and sizes were set."""

    def _unused(self) -> Tensor:
        return self.cluster_size < self.config.revival_threshold * self.cluster_size.mean()

    def _revive(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Move unused codes to vectors of this batch, sampled in proportion to their squared error.

        Uniform sampling would mostly hit flat background, which is well represented already.
        """
        unused = self._unused().nonzero()[:, 0][: len(rows)]
        if not len(unused):
            return
        errors = (rows - self._entries()[codes]).square().sum(1)
        self.embed[unused] = rows[sample_indices(errors, len(unused))]
        # If it stays unused, decay halves this in about 70 steps, and it is revived again.
        self.cluster_size[unused] = 2.0 * self.config.revival_threshold * self.cluster_size.mean()
        self._sync_moved(unused)
