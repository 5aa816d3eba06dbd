"""Pictures as tensors, and as the image tokenizer sees them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cogview.generation.pipeline import Pipeline
from cogview.image.pixels import image_to_array, tensor_to_images

BATCH = 50


def pixels_of(images: Sequence[Image.Image]) -> Float[Tensor, "b c y x"]:
    """Return pictures of one size as a tensor."""
    return torch.from_numpy(np.stack([image_to_array(image) for image in images]))


def redrawn(pipe: Pipeline, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return pictures as the image tokenizer sees them."""
    tokenizer = pipe.image_tokenizer
    parts = pixels_of(images).split(BATCH)
    return [each for part in parts for each in tensor_to_images(tokenizer.decode(tokenizer.encode(part)))]
