"""The sizes that the paper names have the parameters that it gives them."""

import pytest
import torch

from cogview.recipes import image_tokenizer, text_to_image, vqgan
from cogview.recipes.default_data import clothing
from cogview.recipes.resolved import resolved
from cogview.transformer.model import Transformer


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("toy", 0.80e9, 0.88e9),
        ("base_500m", 0.49e9, 0.51e9),
        ("fashion_3b", 2.95e9, 3.05e9),
        ("paper_4b", 3.9e9, 4.0e9),
        ("large_8b", 8.25e9, 8.35e9),
        ("rudalle_1b3", 1.30e9, 1.32e9),
        ("rudolph_350m", 0.35e9, 0.36e9),
    ],
)
@pytest.mark.slow
def test_a_size_has_its_parameters(name: str, least: float, most: float) -> None:
    config, _ = resolved(getattr(text_to_image, name)())
    with torch.device("meta"):
        transformer = Transformer(config)
    num_parameters = sum(parameter.numel() for parameter in transformer.parameters())
    assert num_parameters == config.num_parameters
    assert least <= num_parameters <= most


def test_fashion_has_the_codes_of_its_vqgan() -> None:
    assert resolved(text_to_image.fashion_3b())[1].num_codes_per_image == 2_500


def test_small_fashion_has_the_codes_of_its_vqgan_and_attention_that_is_sparse() -> None:
    recipe, images = text_to_image.fashion_small(), vqgan.small()
    tokens, regions = recipe.made_for, recipe.transformer.three_region
    assert recipe.transformer.attention_pattern == "three_region"
    assert tokens.num_image_codes == images.vqgan.num_codes
    assert tokens.grid_rows == tokens.grid_columns == images.size_pixels // images.vqgan.downsampling_factor
    assert clothing().data.size_pixels == images.size_pixels
    num_tokens = resolved(recipe)[1].num_positions
    assert regions.block_tokens * regions.key_window_blocks < num_tokens / 2
    assert recipe.max_text_pieces < regions.num_text_and_pivot_tokens < num_tokens / 2


@pytest.mark.parametrize("name", ["bundled", "bundled_gpu"])
def test_recipes_are_made_for_their_own_image_tokenizers(name: str) -> None:
    images, tokens = getattr(image_tokenizer, name)(), getattr(text_to_image, name)().made_for
    assert tokens.num_image_codes == images.vqvae.num_codes
    assert tokens.grid_rows == tokens.grid_columns == images.size_pixels // images.vqvae.downsampling_factor
