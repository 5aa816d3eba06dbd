"""Method (b): codes sampled by Gumbel-softmax."""

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.codebook import Codebook
from cogview.image.quantizers.nearest_code import as_grid, as_rows, in_parts
from cogview.image.quantizers.protocol import Quantized


class GumbelQuantizer(Codebook):
    """Codes sampled with probabilities proportional to exp(-|v_k - E(x)|^2 / tau), with decreasing tau.

    Sampled by the Gumbel-max trick. The decoder gets the vector of the sampled code. The gradient is that of the mean
    of all vectors, weighted by the softmax of the same noisy logits. It reaches the encoder and the whole codebook.
    Outside training the nearest code is used, the most probable one.

    Paper: section 2.1, method (b): z = argmax_k g_k - |v_k - E(x)|^2 / tau, tau -> 0.
    """

    temperature: Tensor

    def __init__(self, config: CodebookConfig):
        super().__init__(config, is_learnt_by_gradient=True)
        self.register_buffer("temperature", torch.tensor(config.gumbel_temperatures[0]))

    def quantize(self, vectors: Float[Tensor, "b d r s"]) -> Quantized:
        """Replace each vector by that of a sampled code.

        Until the codebook is initialised, vectors are unchanged.

        Args:
            vectors: the encoder's outputs.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = self._prepared(vectors)
            # In parts, recomputed in the backward pass: all distances would not fit into memory.
            parts = [
                checkpoint(self._draw, rows, use_reentrant=False)
                for rows in in_parts(as_rows(vectors), self.config.num_codes)
            ]
            codes = torch.cat([codes for codes, _ in parts]).view(vectors[:, 0].shape)
            soft = as_grid(torch.cat([soft for _, soft in parts]), vectors)
            sampled = soft + (self.look_up(codes) - soft).detach()
            passed = torch.where(self.is_initialised, sampled, vectors)
            return Quantized(vectors=passed, codes=codes, loss=vectors.new_zeros(()))

    @torch.no_grad()
    def update(
        self, vectors: Float[Tensor, "b d r s"], codes: Int64[Tensor, "b r s"], step: int
    ) -> dict[str, Tensor]:
        """Update the codebook and lower the temperature; the metric is this step's."""
        metrics = super().update(vectors, codes, step) | {"temperature": self.temperature.clone()}
        first, last = self.config.gumbel_temperatures
        share = min(1.0, (step + 1) / self.config.gumbel_annealing_steps)
        self.temperature.fill_(first ** (1.0 - share) * last**share)
        return metrics

    def _draw(self, rows: Float32[Tensor, "n d"]) -> tuple[Int64[Tensor, " n"], Float32[Tensor, "n d"]]:
        """Sample a code for each row; return also the mean of the codebook under the softmax."""
        distances = self._distances(rows)
        terms = gumbel_noise(distances) - distances / self.temperature
        return terms.argmax(1), torch.softmax(terms, 1) @ self._entries()

    def _distances(self, rows: Float32[Tensor, "n d"]) -> Float32[Tensor, "n v"]:
        """Return |v_k - E(x)|^2 of rows and codes, without |E(x)|^2, which is equal for all codes."""
        embed = self._entries()
        return torch.addmm(embed.square().sum(1), rows, embed.T, alpha=-2.0)


def gumbel_noise(like: Float32[Tensor, "n v"]) -> Float32[Tensor, "n v"]:
    """Sample standard Gumbel noise, -log(-log u), in the shape of `like`."""
    return -torch.empty_like(like, requires_grad=False).exponential_().log()
