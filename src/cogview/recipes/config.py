"""What a recipe returns: the whole of a run, as frozen dataclasses that the command line can override."""

from dataclasses import dataclass
from typing import Literal

from cogview.data.config import DefaultDataConfig
from cogview.errors import UsageError
from cogview.image.config import VQVAEConfig
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerRecipe:
    """Stage 1: pixels to codes.

    Args:
        vqvae: shape and losses of the image tokenizer.
        size_pixels: side of the square that training pictures are resized and cropped to.
        training: how it is trained.

    Raises:
        UsageError: the square is not made of whole codes.

    Paper: 2.1.
    """

    vqvae: VQVAEConfig
    size_pixels: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        factor = self.vqvae.downsampling_factor
        if self.size_pixels < factor or self.size_pixels % factor:
            raise UsageError(
                f"size_pixels must be a multiple of {factor}, the pixels that one code stands for, "
                f"got {self.size_pixels}"
            )


@dataclass(frozen=True, kw_only=True)
class TextToImageRecipe:
    """Stage 2: words and codes in one sequence.

    Args:
        transformer: shape and stabilisers; `vocabulary_size` and `num_positions` are replaced by what the
            token shards ask for.
        max_text_pieces: longer texts are clipped and counted.
        image_positions: position of the first code: right after the text, as in the paper, or at a fixed place.
        token_loss: weights and normaliser of the loss.
        training: how it is trained.

    Paper: 2.2-2.4.
    """

    transformer: TransformerConfig
    max_text_pieces: int
    image_positions: Literal["after_text", "fixed"]
    token_loss: TokenLossConfig
    training: TrainingConfig


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """The default data set at one size.

    Args:
        data: what it holds.
    """

    data: DefaultDataConfig
