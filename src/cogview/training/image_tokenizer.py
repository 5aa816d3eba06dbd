"""Training task of stage 1, the image tokenizer."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cogview.data.loader import batch_indices
from cogview.image.autoencoder import Autoencoder, AutoencoderOutput
from cogview.image.config import AutoencoderConfig, CodebookConfig
from cogview.image.pixels import as_float
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.tokenizer_folder import build_autoencoder
from cogview.training.task import Batch, Mean, Metrics, Scalars

STEPS_TO_SETTLE = 200
COLLAPSED_SHARE = 0.005
DISUSED_SHARE = 0.5


@runtime_checkable
class Images(Protocol):
    """Pictures of one size by index: a uint8 array [n y x c] or a sequence of its rows."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one picture, uint8 [y x c]."""
        ...


class ImageTokenizerTask:
    """Training task of an image tokenizer on pictures.

    Args:
        config: shapes and training constants.
        images: pictures of one size, with sides that are multiples of the downsampling factor.
        seed: of the initial weights and the order of the pictures.
        batch_size: pictures per step.

    Paper: section 2.1.
    """

    channels_last = True

    def __init__(self, config: AutoencoderConfig, images: Images, *, seed: int, batch_size: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.autoencoder: Autoencoder = build_autoencoder(config)
        self.module: nn.Module = self.autoencoder
        self.images = images
        self.seed = seed
        self.batch_size = batch_size
        # Encoder outputs and codes of this step's micro-batches, for the codebook's update.
        self._vectors: list[Tensor] = []
        self._codes: list[Tensor] = []
        self._reported: set[str] = set()

    def batch(self, step: int) -> Batch:
        """Return the pictures of a step as uint8, laid out channels-last."""
        indices = batch_indices(self.seed, step, self.batch_size, len(self.images))
        pictures = np.stack([self.images[int(index)] for index in indices])
        return {"images": torch.from_numpy(pictures).permute(0, 3, 1, 2)}

    def num_items(self, batch: Batch) -> tuple[int, str]:
        """Return the number of pictures."""
        return len(batch["images"]), "images"

    def work(self, batch: Batch) -> dict[str, float]:
        """Return nothing: there are only pictures to count."""
        return {}

    def telemetry(self, batch: Batch) -> Scalars:
        """Return nothing: all metrics come from the loss."""
        return {}

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the reconstruction and commitment loss, and metrics."""
        output = self.reconstruct(as_float(batch["images"]))
        return output.loss, means_over_pictures(output.metrics, len(batch["images"]))

    def reconstruct(self, images: Float[Tensor, "b c y x"]) -> AutoencoderOutput:
        """Reconstruct pictures in [-1, 1], and keep the vectors for the codebook's update."""
        output: AutoencoderOutput = self.autoencoder(images)
        self._vectors.append(output.vectors)
        self._codes.append(output.codes)
        return output

    def after_step(self, step: int) -> Scalars:
        """Update the codebook with this step's vectors."""
        vectors, codes = torch.cat(self._vectors), torch.cat(self._codes)
        self._vectors.clear()
        self._codes.clear()
        return self.autoencoder.quantizer.update(vectors, codes, step)

    def advice(self, completed_steps: int, metrics: Mapping[str, float]) -> list[str]:
        """Return the codebook's problems, each once."""
        troubles = codebook_troubles(self.autoencoder.config, completed_steps, metrics)
        new = [words for trouble, words in troubles.items() if trouble not in self._reported]
        self._reported |= troubles.keys()
        return new

    def tokenizer(self) -> ImageTokenizer:
        """Return a copy of the current model."""
        copy = build_autoencoder(self.autoencoder.config)
        copy.load_state_dict(self.autoencoder.state_dict())
        return ImageTokenizer(copy)


def means_over_pictures(means: Mapping[str, Float[Tensor, ""]], num_pictures: int) -> Metrics:
    """Return values that are means over pictures as `Mean`."""
    return {name: Mean(mean * num_pictures, num_pictures) for name, mean in means.items()}


def codebook_troubles(
    config: CodebookConfig, completed_steps: int, metrics: Mapping[str, float]
) -> dict[str, str]:
    """Return the problems of a codebook by its metrics, with advice.

    Args:
        config: of the codebook.
        completed_steps: the first `STEPS_TO_SETTLE` steps of the codebook are ignored.
        metrics: `usage` and `perplexity`, as a quantizer's `update` returns them.

    Returns:
        A text for each problem, `collapse` or `disuse`.
    """
    if completed_steps < config.codebook_start_step + STEPS_TO_SETTLE:
        return {}
    perplexity, usage = metrics["perplexity"], metrics["usage"]
    if perplexity < COLLAPSED_SHARE * config.num_codes:
        return {
            "collapse": f"After {completed_steps} steps the codebook has collapsed to about "
            f"{perplexity:,.0f} of {config.num_codes:,} codes (perplexity). Stop and try a lower learning_rate, "
            "a later codebook_start_step, or codebook_initialisation encoder_outputs."
        }
    if usage < DISUSED_SHARE:
        return {
            "disuse": f"After {completed_steps} steps only {usage:.0%} of {config.num_codes:,} codes are used. Fewer "
            "codes would do (num_codes), or revive the others more often (revival_every_steps)."
        }
    return {}
