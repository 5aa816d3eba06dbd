"""Options of every run with a model; torch is not imported here."""

from dataclasses import dataclass
from typing import Any

from cogview.decoding.config import DtypeName


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model and its device.

    Args:
        model: a model folder, a training run, or OWNER/NAME on the Hugging Face hub; by default the bundled model.
        device: cpu, cuda, cuda:1, ...; by default a GPU if there is one.
        dtype: of the weights; by default float32 on CPU and bfloat16 on a GPU.
    """

    model: str | None = None
    device: str | None = None
    dtype: DtypeName | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Sampling of codes.

    Args:
        temperature: below 1 prefers probable codes, above 1 flattens the distribution, 0 takes the most probable code.
        top_k: sample from this many most probable codes.
        top_p: sample from the fewest codes with this total probability, 1 from all; by default the model's own.
        guidance: above 1 follows the text more closely, if the model was trained with dropped texts; by default the
            model's own.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float | None = None

    def sampling(self) -> dict[str, Any]:
        """Return the options as arguments of `Pipeline.generate`."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance,
        }
