"""Conversion between RGB pictures and arrays in [-1, 1]."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor


def image_to_array(image: Image.Image) -> Float32[np.ndarray, "c y x"]:
    """Convert an RGB picture to pixels in [-1, 1]."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return np.ascontiguousarray((pixels / 127.5 - 1.0).transpose(2, 0, 1))


def as_float(images: UInt8[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Convert uint8 pixels to [-1, 1]."""
    return images.float() / 127.5 - 1.0


def tensor_to_images(images: Float[Tensor, "b c y x"]) -> list[Image.Image]:
    """Convert tensors in [-1, 1] to pictures, clipping what is outside."""
    scaled = ((images.detach().float() + 1.0) * 127.5).round().clamp(0, 255)
    pixels = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
