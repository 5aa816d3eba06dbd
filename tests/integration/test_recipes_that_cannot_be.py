"""A recipe whose numbers contradict each other is refused before anything is read or written."""

import dataclasses
from typing import Any

import pytest
import torch

from cogview.data.config import MaskingConfig
from cogview.errors import UsageError
from cogview.image.adversary import PatchDiscriminator
from cogview.image.config import LEAST_PATCHES
from cogview.recipes import image_tokenizer, text_to_image, vqgan
from cogview.recipes.config import FewCodesFirstConfig


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (MaskingConfig(), "dropped_texts"),
        (MaskingConfig(), "masked_codes"),
        (text_to_image.tiny(), "mixed_codes"),
        (text_to_image.tiny(), "mixed_codes_at_end"),
    ],
)
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_texts_are_dropped_and_codes_mixed_and_masked_by_a_share(
    settings: Any, name: str, share: float
) -> None:
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(settings, **{name: share})


@pytest.mark.parametrize("name", ["fraction", "masked_codes"])
def test_a_run_begins_with_few_codes_for_a_share_of_its_steps(name: str) -> None:
    with pytest.raises(UsageError, match=f"few_codes_first.{name} "):
        FewCodesFirstConfig(**{name: 1.5})


def test_codes_are_not_mixed_in_batches_of_one_picture() -> None:
    training = dataclasses.replace(text_to_image.tiny().training, batch_size=1)
    alone = dataclasses.replace(text_to_image.tiny(), training=training)
    with pytest.raises(UsageError, match="batch_size"):
        dataclasses.replace(alone, mixed_codes=0.5)


@pytest.mark.parametrize("recipe", [image_tokenizer.tiny(), vqgan.tiny()], ids=["vqvae", "vqgan"])
@pytest.mark.parametrize("precision", ["float16_o2", "bfloat16_o2"])
def test_image_tokenizers_are_not_trained_in_half_precision(recipe: object, precision: str) -> None:
    training = dataclasses.replace(recipe.training, precision=precision)
    with pytest.raises(UsageError, match=f"training.precision {precision} "):
        dataclasses.replace(recipe, training=training)


@pytest.mark.parametrize(("size_pixels", "num_layers"), [(8, 2), (32, 4)])
def test_a_discriminator_that_finds_nothing_in_pictures_so_small_is_refused(
    size_pixels: int, num_layers: int
) -> None:
    recipe = vqgan.tiny()
    config = dataclasses.replace(recipe.vqgan, discriminator_layers=num_layers)
    with pytest.raises(
        UsageError, match=f"discriminator_layers {num_layers} leave nothing of {size_pixels} pix"
    ):
        dataclasses.replace(recipe, vqgan=config, size_pixels=size_pixels)
    never = dataclasses.replace(config, discriminator_start_step=recipe.training.num_steps)
    assert dataclasses.replace(recipe, vqgan=never, size_pixels=size_pixels).size_pixels == size_pixels


def test_wavelets_are_not_trained() -> None:
    recipe = vqgan.tiny()
    with pytest.raises(UsageError, match="decoder_output wavelets"):
        dataclasses.replace(recipe, vqgan=dataclasses.replace(recipe.vqgan, decoder_output="wavelets"))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_smallest_pictures_that_are_not_refused_have_one_patch(num_layers: int) -> None:
    side = LEAST_PATCHES * 2**num_layers
    assert PatchDiscriminator(8, num_layers)(torch.zeros(1, 3, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        PatchDiscriminator(8, num_layers)(torch.zeros(1, 3, side - 1, side - 1))
