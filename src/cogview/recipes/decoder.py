"""Recipes of additional decoders for image tokenizers."""

from dataclasses import replace

from cogview.image.decoder_config import DecoderConfig
from cogview.recipes.config import DecoderRecipe
from cogview.training.config import TrainingConfig


def bundled() -> DecoderRecipe:
    """The decoder that ships: 128, 256 and 512 pixels from the bundled tokenizer's 16 x 16 codes.

    Claim: sharp edges and flat grounds where the tokenizer's own decoder has haze.
    Command: cogview train decoder bundled --data PICTURES PICTURES OTHERS --out RUN (what the model draws counts twice)
    Cost: see `scripts/bundled-decoder.sh`.
    Expected: see the model card in `src/cogview/bundled/README.md`.
    """
    return DecoderRecipe(
        decoder=DecoderConfig(
            # Scenes are aligned to the grid of codes, so that neighbouring codes mostly determine the pixels.
            neighbourhood=5,
            channels=(384,),
            num_blocks=(4,),
            kernel_size=1,
            l1_weight=0.0,
            ground_levels=12,
            perceptual_start_step=14_000,
            discriminator_weight=0.0,
        ),
        size_pixels=128,
        training=TrainingConfig(
            num_steps=15_000,
            batch_size=8,
            learning_rate=1e-2,
            final_learning_rate_fraction=0.02,
            betas=(0.9, 0.99),
            weight_decay=1e-5,
            precision="auto",
            log_every_steps=20,
            sample_every_steps=500,
            checkpoint_every_steps=100,
        ),
    )


def world() -> DecoderRecipe:
    """The decoder of the larger world, which goes on from the one of `bundled`.

    Claim: as `bundled`, for the things, colours and sizes of `default_data.world`.
    Command: cogview train decoder world --start-from bundled --data PICTURES PICTURES OTHERS --out RUN
    Cost: to be measured.
    Expected: to be measured.
    """
    recipe = bundled()
    return replace(
        recipe,
        decoder=replace(recipe.decoder, perceptual_start_step=19_000),
        training=replace(recipe.training, num_steps=20_000, learning_rate=5e-3),
    )


def double() -> DecoderRecipe:
    """A decoder to twice the size, for a tokenizer of one's own, a VQGAN or the release's, on a GPU.

    Claim: what an enlarged picture lacks in edges and texture, from the very same codes.
    Command: cogview train decoder double --image-tokenizer TOKENIZER --data PICTURES --out RUN
    Cost: not measured at this size; `docs/decoders.md` has a smaller run.
    Expected: not measured.
    """
    return DecoderRecipe(
        decoder=DecoderConfig(scales=(2,), channels=(256, 192, 128, 64), discriminator_channels=64),
        size_pixels=256,
        training=replace(
            bundled().training,
            num_steps=50_000,
            batch_size=16,
            learning_rate=3e-4,
            log_every_steps=50,
            sample_every_steps=2_000,
            checkpoint_every_steps=1_000,
        ),
    )


def tiny() -> DecoderRecipe:
    """A decoder so small that a test trains it.

    Claim: runs the whole path in seconds.
    Command: cogview train decoder tiny --image-tokenizer TOKENIZER --data PICTURES --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return DecoderRecipe(
        decoder=DecoderConfig(
            scales=(1, 2),
            channels=(16, 8),
            num_blocks=(1, 1),
            perceptual_weight=0.0,
            discriminator_start_step=10,
            discriminator_channels=8,
            discriminator_layers=2,
            judged_pixels=32,
        ),
        size_pixels=32,
        training=replace(
            bundled().training,
            num_steps=20,
            batch_size=4,
            log_every_steps=5,
            sample_every_steps=10,
            checkpoint_every_steps=10,
        ),
    )
