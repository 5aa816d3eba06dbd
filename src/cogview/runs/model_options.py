"""What all runs with a model are asked for. torch is not imported here."""

from dataclasses import dataclass
from typing import Any

from cogview.decoding.config import DtypeName


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and where it computes.

    Args:
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
    """

    model: str | None = None
    device: str | None = None
    dtype: DtypeName | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How codes are drawn.

    Args:
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt, for models trained with some texts dropped;
            the model's own by default.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float | None = None

    def sampling(self) -> dict[str, Any]:
        """Return these alone, as arguments of `Pipeline.generate`."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance,
        }
