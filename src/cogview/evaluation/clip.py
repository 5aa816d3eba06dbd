"""CLIP as a judge of which candidate fits a caption, for those who have open_clip and its weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from PIL import Image

from cogview.errors import UsageError
from cogview.evaluation.backbone import UNFITTING, reading_weights, unfitting, weights_in

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class FitScorer(Protocol):
    """Says how well pictures fit a text; the higher, the better."""

    @property
    def name(self) -> str:
        """Return what the choice by it is called in figures."""
        ...

    def __call__(self, text: str, pictures: Sequence[Image.Image], /) -> Float64[np.ndarray, "_"]:
        """Return a number for each picture."""
        ...


class Clip:
    """The cosine of CLIP's features of a text and of pictures.

    Args:
        model: one of open_clip's.
        transform: what it was given with, pictures to tensors.
        tokenizer: texts to its tokens.
        device: of the model.
    """

    name = "CLIP"

    def __init__(
        self, model: Any, transform: Any, tokenizer: Any, device: torch.device | str = "cpu"
    ) -> None:
        self._model, self._transform, self._tokenizer, self._device = model, transform, tokenizer, device

    @torch.inference_mode()
    def __call__(self, text: str, pictures: Sequence[Image.Image]) -> Float64[np.ndarray, "_"]:
        """Return the cosine of the text and each picture."""
        pixels = torch.stack([self._transform(each) for each in pictures]).to(self._device)
        seen: Tensor = self._model.encode_image(pixels)
        said: Tensor = self._model.encode_text(self._tokenizer([text]).to(self._device))
        return torch.cosine_similarity(seen.double(), said.double()).cpu().numpy()


def load_clip(name: str, weights: Path, device: torch.device | str = "cpu") -> Clip:
    """Read a CLIP of open_clip's.

    Args:
        name: of its architecture, as open_clip calls it: `ViT-B-32`.
        weights: its file, of PyTorch or safetensors.
        device: where it will lie.

    Raises:
        UsageError: open_clip is not installed, or knows no such architecture.
        CogViewError: the file cannot be read, or holds something else.
    """
    try:
        import open_clip
    except UNFITTING as error:
        raise unfitting("CLIP needs the package open_clip", "open_clip_torch", error) from error
    if name not in open_clip.list_models():
        raise UsageError(f"open_clip knows no {name!r}: give --clip one of its names, ViT-B-32 for instance")
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=None)
    with reading_weights(weights, f"CLIP's {name}", "a file of open_clip's for it"):
        found = weights_in(weights)
        found = found.get("state_dict", found)
        model.load_state_dict({key.removeprefix("module."): value for key, value in found.items()})
    return Clip(model.eval().to(device), transform, open_clip.get_tokenizer(name), device)
