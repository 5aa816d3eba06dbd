"""What the five quantizers share: the codebook, the search, where it starts, and the guard against dead codes."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.initialisation import draw_in_proportion, lay_into
from cogview.image.quantizers.nearest_code import as_rows, cluster_sums, nearest_codes
from cogview.image.quantizers.protocol import Quantized


class Codebook(nn.Module):
    """A codebook with nearest-neighbour codes and a gradient that passes straight through; it learns nothing itself.

    All of it runs in fp32, whatever autocast says: differences of squared distances are too fine for bf16.

    Subclasses say how it learns: by `_learn` from each step's vectors, by a loss, or both.

    Differs from the paper: by default the codebook starts as a few Lloyd steps on encoder outputs, and codes that are
    hardly used move to badly served encoder outputs at a fixed interval; the paper says that initialisation decides,
    not which.

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
        """Replace each vector by its nearest code's; the gradient passes straight through.

        Until the codebook is initialised, the vectors pass as they are and the loss is zero.

        Args:
            vectors: the encoder's outputs.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = self._prepared(vectors)
            codes = self.nearest(vectors)
            # A tensor decides, not a Python bool: nothing is read back and compiled code has no branch.
            nearest = torch.where(self.is_initialised, self.look_up(codes), vectors.detach())
            return Quantized(
                vectors=vectors + (nearest - vectors).detach(), codes=codes, loss=self._loss(vectors, nearest)
            )

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the nearest code of each vector, the lowest index where two are equally near."""
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
        """Learn from a step's vectors; now and then revive unused codes.

        Args:
            vectors: the encoder's outputs of this step.
            codes: the codes that `quantize` gave them; ignored while the codebook is not initialised.
            step: the training step, from 0.

        Returns:
            `usage`, the share of codes that are not up for revival, and `perplexity` of the moving cluster sizes.
        """
        rows, flat = as_rows(self._prepared(vectors.detach())), codes.reshape(-1)
        if self.is_initialised:
            self._learn(rows, flat)
            interval = self.config.revival_every_steps
            if interval and step % interval == interval - 1:
                self._revive(rows, flat)
        elif step >= self.config.codebook_start_step:
            embed, sizes = lay_into(rows, self.config.num_codes)
            self.embed.copy_(embed)
            self.cluster_size.copy_(sizes)
            self.take_codebook_as_it_is()
        shares = self.cluster_size / self.cluster_size.sum()
        entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
        return {"usage": 1.0 - self._unused().float().mean(), "perplexity": entropy.exp()}

    @torch.no_grad()
    def take_codebook_as_it_is(self) -> None:
        """Count the codebook as initialised, after its vectors were set."""
        self._after_placing(torch.arange(self.config.num_codes, device=self.embed.device))
        self.is_initialised.fill_(True)

    def _prepared(self, vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "b d r s"]:
        """Return the encoder's outputs as they are compared with the entries."""
        return vectors.float()

    def _entries(self) -> Float[Tensor, "v d"]:
        """Return the codes' vectors as the decoder is given them."""
        return self.embed

    def _loss(
        self, vectors: Float[Tensor, "b d r s"], nearest: Float[Tensor, "b d r s"]
    ) -> Float[Tensor, ""]:
        """Return the commitment loss, which pulls the encoder's outputs to their codes."""
        return self.config.commitment_weight * (vectors - nearest.detach()).square().mean()

    def _learn(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Learn from a step's vectors: here, how often each code is used."""
        sizes, _ = cluster_sums(rows, codes, self.config.num_codes)
        self.cluster_size.lerp_(sizes, 1.0 - self.config.decay)

    def _after_placing(self, codes: Int64[Tensor, " k"]) -> None:
        """Bring what else is kept of the codes up to date after their vectors and sizes were set."""

    def _unused(self) -> Tensor:
        return self.cluster_size < self.config.revival_threshold * self.cluster_size.mean()

    def _revive(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Move unused codes to vectors of this batch, drawn in proportion to their squared distance from their code.

        A plain draw would mostly hit flat background, which a picture has most of and which is served already.
        """
        unused = self._unused().nonzero()[:, 0][: len(rows)]
        if not len(unused):
            return
        errors = (rows - self._entries()[codes]).square().sum(1)
        self.embed[unused] = rows[draw_in_proportion(errors, len(unused))]
        # A short trial: if it stays unused, decay has halved this and it is up for revival again after 70 steps or so.
        self.cluster_size[unused] = 2.0 * self.config.revival_threshold * self.cluster_size.mean()
        self._after_placing(unused)
