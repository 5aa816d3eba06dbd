"""Recipes of VQGANs, stage 1 for one domain."""

from dataclasses import replace

from cogview.image.config import VQGANConfig
from cogview.recipes.config import VQGANRecipe
from cogview.training.config import TrainingConfig


def fashion() -> VQGANRecipe:
    """The VQGAN of section 3.4: 800 x 800 pixels to 50 x 50 of 16,384 codes.

    Claim: sharper textures than a VQ-VAE, at a quarter of the codes a pixel.
    Command: cogview train vqgan fashion --data PICTURES --out RUN
    Cost: needs a GPU; not measured.
    Expected: not measured.

    Differs from the paper: its training is not described; rates are those usual for VQGANs.
    """
    return VQGANRecipe(
        vqgan=VQGANConfig(codebook_start_step=200),
        size_pixels=800,
        training=TrainingConfig(
            num_steps=200_000,
            batch_size=8,
            num_micro_batches=4,
            learning_rate=4.5e-6 * 8,
            final_learning_rate_fraction=0.1,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            gradient_clip=0.0,
            precision="auto",
            log_every_steps=50,
            sample_every_steps=2_000,
            checkpoint_every_steps=1_000,
        ),
    )


def factor_8() -> VQGANRecipe:
    """A VQGAN of factor 8: 256 x 256 pixels to 32 x 32 of 8,192 codes, in the place of the paper's VQ-VAE.

    Claim: the grid that the pretrained transformers know, drawn sharper.
    Command: cogview train vqgan factor-8 --data PICTURES --out RUN
    Cost: needs a GPU; not measured.
    Expected: not measured.
    """
    recipe = fashion()
    return replace(
        recipe,
        vqgan=replace(recipe.vqgan, num_codes=8_192, channel_factors=(1, 2, 2, 4), attention_grids=(3,)),
        size_pixels=256,
        training=replace(recipe.training, batch_size=16, learning_rate=4.5e-6 * 16),
    )


def small() -> VQGANRecipe:
    """A VQGAN for a CPU: 64 x 64 pixels to 16 x 16 of 1,024 codes.

    Claim: redraws objects that it has never seen, with sharp edges once the discriminator has learnt to see.
    Command: cogview train vqgan small --data PICTURES --out RUN
    Cost: about 40 minutes on 2 CPU cores.
    Expected: 24.3 dB on held-out objects ("A VQGAN on two cores" in `bench/README.md`).
    """
    recipe = fashion()
    return VQGANRecipe(
        vqgan=replace(
            recipe.vqgan,
            num_codes=1024,
            code_size=64,
            channels=32,
            channel_factors=(1, 2, 4),
            num_blocks=1,
            attention_grids=(),
            norm_groups=8,
            inner_size=64,
            codebook_start_step=50,
            revival_every_steps=25,
            discriminator_start_step=1_000,
            discriminator_weight=0.5,
            discriminator_channels=32,
            discriminator_layers=2,
        ),
        size_pixels=64,
        training=replace(
            recipe.training,
            num_steps=2_000,
            batch_size=16,
            num_micro_batches=1,
            learning_rate=5e-4,
            log_every_steps=20,
            sample_every_steps=250,
            checkpoint_every_steps=100,
        ),
    )


def tiny() -> VQGANRecipe:
    """A VQGAN so small that a test trains it.

    Claim: runs the whole path in seconds; draws coloured blots.
    Command: cogview train vqgan tiny --data PICTURES --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return VQGANRecipe(
        vqgan=VQGANConfig(
            num_codes=64,
            code_size=16,
            channels=32,
            channel_factors=(1, 1, 1, 1),
            num_blocks=1,
            attention_grids=(),
            norm_groups=8,
            inner_size=16,
            codebook_start_step=2,
            revival_every_steps=5,
            perceptual_weight=0.0,
            discriminator_start_step=10,
            discriminator_channels=8,
            discriminator_layers=2,
        ),
        size_pixels=32,
        training=TrainingConfig(
            num_steps=20,
            batch_size=4,
            learning_rate=1e-3,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            log_every_steps=5,
            sample_every_steps=10,
            checkpoint_every_steps=10,
        ),
    )
