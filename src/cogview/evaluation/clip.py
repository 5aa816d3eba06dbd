"""CLIP scores of how well pictures fit a text, with open_clip."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from PIL import Image

from cogview.errors import UsageError
from cogview.evaluation.backbone import IMPORT_ERRORS, import_failure, reading_weights, weights_in

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class FitScorer(Protocol):
    """Scorer of how well pictures fit a text."""

    @property
    def name(self) -> str:
        """Return its name in figures."""
        ...

    def __call__(self, text: str, pictures: Sequence[Image.Image], /) -> Float64[np.ndarray, "_"]:
        """Return a score for each picture; higher fits better."""
        ...


class Clip:
    """Cosine similarity of CLIP's features of a text and of pictures.

    Args:
        model: a model of open_clip.
        transform: the model's transform from pictures to tensors.
        tokenizer: the model's tokenizer of texts.
        device: device of the model.
    """

    name = "CLIP"

    def __init__(
        self, model: Any, transform: Any, tokenizer: Any, device: torch.device | str = "cpu"
    ) -> None:
        self._model, self._transform, self._tokenizer, self._device = model, transform, tokenizer, device

    @torch.inference_mode()
    def __call__(self, text: str, pictures: Sequence[Image.Image]) -> Float64[np.ndarray, "_"]:
        """Return the cosine similarity of the text and each picture."""
        pixels = torch.stack([self._transform(each) for each in pictures]).to(self._device)
        of_pictures: Tensor = self._model.encode_image(pixels)
        of_text: Tensor = self._model.encode_text(self._tokenizer([text]).to(self._device))
        return torch.cosine_similarity(of_pictures.double(), of_text.double()).cpu().numpy()


def load_clip(name: str, weights: Path, device: torch.device | str = "cpu") -> Clip:
    """Load a CLIP model of open_clip.

    Args:
        name: open_clip's name of the architecture, for example `ViT-B-32`.
        weights: file of PyTorch or safetensors.
        device: device of the model.

    Raises:
        UsageError: open_clip is not installed, or has no such architecture.
        CogViewError: the file cannot be read, or does not fit.
    """
    try:
        import open_clip
    except IMPORT_ERRORS as error:
        raise import_failure("CLIP needs the package open_clip", "open_clip_torch", error) from error
    if name not in open_clip.list_models():
        raise UsageError(f"open_clip knows no {name!r}: give --clip one of its names, ViT-B-32 for instance")
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=None)
    with reading_weights(weights, f"CLIP's {name}", "a file of open_clip's for it"):
        content = weights_in(weights)
        state = content.get("state_dict", content)
        model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return Clip(model.eval().to(device), transform, open_clip.get_tokenizer(name), device)
