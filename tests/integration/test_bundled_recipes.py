"""The models that ship, or are to, fit the repository: 60 MB with both tokenizers."""

import dataclasses

import pytest
import torch

from cogview.image.fingerprint import inference_weights
from cogview.image.vqvae import VQVAE
from cogview.models.config import BUNDLED_FOLDER
from cogview.recipes import image_tokenizer, text_to_image
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.model import Transformer

MAX_BYTES, HALF = 60e6, 2


@pytest.mark.parametrize("name", ["bundled_start", "bundled", "bundled_gpu_start", "bundled_gpu"])
@pytest.mark.slow
def test_a_bundled_recipe_makes_at_most_60_megabytes(name: str) -> None:
    recipe = getattr(text_to_image, name)()
    images = getattr(image_tokenizer, name.removesuffix("_start"))()
    text_model = BUNDLED_FOLDER / "text.model"
    template = TextToImageTemplate(
        vocabulary=Vocabulary(
            num_image_codes=images.vqvae.num_codes,
            num_text_pieces=TextTokenizer.from_file(text_model).num_pieces,
        ),
        grid_rows=images.size_pixels // images.vqvae.downsampling_factor,
        grid_columns=images.size_pixels // images.vqvae.downsampling_factor,
        max_text_pieces=recipe.max_text_pieces,
        image_positions=recipe.image_positions,
    )
    config = dataclasses.replace(
        recipe.transformer, vocabulary_size=template.vocabulary.size, num_positions=template.num_positions
    )
    with torch.device("meta"):
        transformer, vqvae = Transformer(config), VQVAE(images.vqvae)
    num_weights = sum(weight.numel() for weight in transformer.state_dict().values())
    num_weights += sum(weight.numel() for weight in inference_weights(vqvae).values())
    assert HALF * num_weights + text_model.stat().st_size <= MAX_BYTES
