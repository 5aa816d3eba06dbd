"""Stage 1: train the image tokenizer on pictures alone."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cogview.data.loader import batch_indices
from cogview.image.config import VQVAEConfig
from cogview.image.pixels import as_float
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.vqvae import VQVAE
from cogview.training.task import Batch, Metrics


@runtime_checkable
class Images(Protocol):
    """Pictures of one size by number: a uint8 array [n y x c], or anything that gives its rows."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one picture, uint8 [y x c]."""
        ...


class ImageTokenizerTask:
    """Show the training loop a VQ-VAE and its pictures.

    Args:
        config: shapes and training constants of the VQ-VAE.
        images: pictures of one size, whose sides are multiples of the downsampling factor.
        seed: decides the initial weights and the order of the pictures.
        batch_size: pictures a step.

    Paper: section 2.1.
    """

    channels_last = True

    def __init__(self, config: VQVAEConfig, images: Images, *, seed: int, batch_size: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = VQVAE(config)
        self.images = images
        self.seed = seed
        self.batch_size = batch_size
        # Encoder outputs and codes of this step's micro-batches, for the codebook's update.
        self._vectors: list[Tensor] = []
        self._codes: list[Tensor] = []

    def batch(self, step: int) -> Batch:
        """Return the pictures of a step as uint8, laid out channels-last."""
        indices = batch_indices(self.seed, step, self.batch_size, len(self.images))
        pictures = np.stack([self.images[int(index)] for index in indices])
        return {"images": torch.from_numpy(pictures).permute(0, 3, 1, 2)}

    def num_items(self, batch: Batch) -> tuple[int, str]:
        """Return the number of pictures."""
        return len(batch["images"]), "images"

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the reconstruction and commitment loss and what it is made of."""
        output = self.module(as_float(batch["images"]))
        self._vectors.append(output.vectors)
        self._codes.append(output.codes)
        return output.loss, output.metrics

    def after_step(self, step: int) -> Metrics:
        """Let the codebook learn from this step's vectors."""
        vectors, codes = torch.cat(self._vectors), torch.cat(self._codes)
        self._vectors.clear()
        self._codes.clear()
        return self.module.quantizer.update(vectors, codes, step)

    def tokenizer(self) -> ImageTokenizer:
        """Return a copy of the model as it is now, ready to be used or saved."""
        vqvae = VQVAE(self.module.config)
        vqvae.load_state_dict(self.module.state_dict())
        return ImageTokenizer(vqvae)
