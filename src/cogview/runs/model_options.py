"""Options of every run with a model; torch is not imported here."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cogview.decoding.config import CacheName, DtypeName, KernelsName


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model and its device.

    Args:
        model: a model folder, a training run, or OWNER/NAME on the Hugging Face hub; by default the bundled model.
        device: cpu, cuda, cuda:1, ...; by default a GPU if there is one.
        dtype: of the weights; by default float32 (or stored int8) on CPU, bfloat16 on a GPU; int8 is fastest and
            smallest on CPU.
    """

    GROUP: ClassVar[str] = "model"

    model: str | None = None
    device: str | None = None
    dtype: DtypeName | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Sampling of codes.

    Args:
        temperature: below 1 prefers probable codes, above 1 flattens the distribution, 0 takes the most probable code.
        top_k: sample from this many most probable codes; by default from all.
        top_p: sample from the fewest codes with this total probability, 1 from all; by default the model's own.
        guidance: above 1 follows the text more closely, if the model was trained with dropped texts; by default the
            model's own.
    """

    GROUP: ClassVar[str] = "sampling"

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


@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """Limits of memory, and kernels; results do not depend on them, except for rounding by `cache` and `kernels`.

    Args:
        max_batch: largest number of pictures drawn at once.
        memory: limit of the whole process, such as 6GiB or 800MB, to which the batch is fitted; by default all there
            is.
        cache: dtype of cached keys and values; float16 halves their memory.
        kernels: native ones are faster where few pictures are drawn at once on a CPU; they need Numba
            (cogview[native]), which compiles them for a minute the first time.
    """

    GROUP: ClassVar[str] = "resource"

    max_batch: int = 16
    memory: str | None = None
    cache: CacheName = "auto"
    kernels: KernelsName = "auto"
