"""Recipes of image tokenizers, stage 1."""

from dataclasses import replace

from cogview.image.config import VQVAEConfig
from cogview.recipes.config import ImageTokenizerRecipe
from cogview.training.config import TrainingConfig


def bundled() -> ImageTokenizerRecipe:
    """The image tokenizer that ships with the project: 128 x 128 pixels to 16 x 16 of 2,048 codes.

    Claim: draws icons it has not seen, with most of the codebook in use.
    Command: cogview train image-tokenizer bundled --data PICTURES --out RUN
    Cost: about half an hour on 2 CPU cores with bfloat16.
    Expected: see the model card in `src/cogview/bundled/README.md`.
    """
    return ImageTokenizerRecipe(
        vqvae=VQVAEConfig(
            num_codes=2048,
            code_size=64,
            patch_size_pixels=2,
            # Codes depend on their own pixels alone: a thing has the same codes in every surrounding.
            encoder_kernel_size=2,
            encoder_channels=(192, 384),
            encoder_blocks=(0, 1),
            decoder_stem_channels=256,
            decoder_stem_blocks=2,
            decoder_channels=(128, 64),
            decoder_blocks=(1, 0),
            pixel_mean=(0.6, 0.6, 0.6),
            pixel_std=(0.3, 0.3, 0.3),
            l1_weight=0.1,
            codebook_start_step=50,
            revival_every_steps=25,
            revival_threshold=0.1,
        ),
        size_pixels=128,
        training=TrainingConfig(
            num_steps=3_000,
            batch_size=16,
            learning_rate=1e-3,
            final_learning_rate_fraction=0.02,
            weight_decay=1e-4,
            precision="auto",
            log_every_steps=20,
            sample_every_steps=400,
            checkpoint_every_steps=200,
        ),
    )


def bundled_gpu() -> ImageTokenizerRecipe:
    """The bundled image tokenizer with twice the codes and more blocks, for one GPU.

    Claim: sharper than `bundled` on unseen icons.
    Command: cogview train image-tokenizer bundled-gpu --data PICTURES --out RUN
    Cost: 1.3 M pictures; to be measured on a GPU.
    Expected: to be measured; listed as pending in `bench/README.md`.
    """
    small = bundled()
    return ImageTokenizerRecipe(
        vqvae=replace(
            small.vqvae,
            num_codes=4096,
            encoder_blocks=(1, 2),
            decoder_stem_blocks=3,
            decoder_blocks=(2, 1),
            revival_threshold=0.1,
        ),
        size_pixels=small.size_pixels,
        training=replace(
            small.training,
            num_steps=20_000,
            batch_size=64,
            log_every_steps=50,
            sample_every_steps=2_000,
            checkpoint_every_steps=1_000,
        ),
    )


def tiny() -> ImageTokenizerRecipe:
    """An image tokenizer so small that a test trains it.

    Claim: runs the whole path in seconds; draws coloured blots.
    Command: cogview train image-tokenizer tiny --data PICTURES --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return ImageTokenizerRecipe(
        vqvae=VQVAEConfig(
            num_codes=64,
            code_size=16,
            patch_size_pixels=2,
            encoder_channels=(16, 32),
            encoder_blocks=(0, 0),
            decoder_channels=(32, 16),
            decoder_blocks=(0, 0),
            codebook_start_step=2,
            revival_every_steps=5,
        ),
        size_pixels=32,
        training=TrainingConfig(
            num_steps=20,
            batch_size=4,
            learning_rate=1e-3,
            log_every_steps=5,
            sample_every_steps=10,
            checkpoint_every_steps=10,
        ),
    )


def released() -> ImageTokenizerRecipe:
    """The architecture of the paper's image tokenizer: 256 x 256 pixels to 32 x 32 of 8,192 codes.

    Claim: the shape of the weights released in 2021.
    Command: cogview train image-tokenizer released --data PICTURES --out RUN
    Cost: needs a GPU; not measured.
    Expected: not measured.
    """
    return ImageTokenizerRecipe(
        vqvae=VQVAEConfig(),
        size_pixels=256,
        training=TrainingConfig(
            num_steps=100_000,
            batch_size=64,
            learning_rate=3e-4,
            weight_decay=1e-4,
            precision="auto",
            compile=True,
            log_every_steps=50,
            sample_every_steps=1_000,
            checkpoint_every_steps=1_000,
        ),
    )
