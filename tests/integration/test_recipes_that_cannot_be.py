"""A recipe whose numbers contradict each other is refused before anything is read or written."""

import dataclasses

import pytest

from cogview.errors import UsageError
from cogview.recipes import image_tokenizer, text_to_image, vqgan


@pytest.mark.parametrize("name", ["dropped_texts", "mixed_codes", "masked_codes"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_texts_are_dropped_and_codes_mixed_and_masked_by_a_share(name: str, share: float) -> None:
    with pytest.raises(UsageError, match=f"{name} must be a share"):
        dataclasses.replace(text_to_image.tiny(), **{name: share})


def test_codes_are_not_mixed_in_batches_of_one_picture() -> None:
    training = dataclasses.replace(text_to_image.tiny().training, batch_size=1)
    alone = dataclasses.replace(text_to_image.tiny(), training=training)
    with pytest.raises(UsageError, match="batch_size is 1"):
        dataclasses.replace(alone, mixed_codes=0.5)


@pytest.mark.parametrize("recipe", [image_tokenizer.tiny(), vqgan.tiny()], ids=["vqvae", "vqgan"])
@pytest.mark.parametrize("precision", ["float16_o2", "bfloat16_o2"])
def test_image_tokenizers_are_not_trained_in_half_precision(recipe: object, precision: str) -> None:
    training = dataclasses.replace(recipe.training, precision=precision)
    with pytest.raises(UsageError, match=f"training.precision {precision} is for transformers"):
        dataclasses.replace(recipe, training=training)
