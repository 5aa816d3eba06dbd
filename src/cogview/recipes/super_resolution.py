"""Recipes of super-resolution adapters."""

from dataclasses import replace

from cogview.data.config import MaskingConfig
from cogview.recipes.config import SuperResolutionRecipe
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import AdapterConfig


def bundled_start() -> SuperResolutionRecipe:
    """First phase of super-resolution for the bundled model, on a few high codes of each picture, mostly at edges.

    Claim: learns the high codes of each low code at a fraction of the cost of whole pictures.
    Command: cogview train super-resolution bundled-start --data TOKENS-256 --low TOKENS-128 --windows TOKENS-512 --out
        START
    Cost: 3,000 steps of 12 pictures, some two hours of one CPU core.
    Expected: 0.49 nats a code of those kept; it is no upscaler before `bundled` goes on from it.

    Differs from the paper: as `bundled` does, and sequences leave out most high codes.
    """
    recipe = bundled()
    return replace(
        recipe,
        masking=replace(recipe.masking, masked_codes=0.5, kept_codes=192, weight_of_changes=8.0),
        training=replace(recipe.training, num_steps=3_000, batch_size=12, sample_every_steps=1_000),
    )


def bundled() -> SuperResolutionRecipe:
    """Super-resolution for the bundled model: 16x16 to 32x32 codes, and by windows to 64x64.

    Claim: draws a picture again at twice its rows and columns, sharper than upscaled pixels.
    Command: cogview train super-resolution bundled --data TOKENS-256 --low TOKENS-128 --windows TOKENS-512 --start-from
        START --out RUN
    Cost: 1,200 steps of 4 pictures, some 75 minutes of one CPU core.
    Expected: perceptual distance 0.35, bicubic upscaling 0.45 (`bench/super_resolution.py`); without a start and
    without hidden codes it was worse than upscaled pixels.

    Differs from the paper: an adapter is trained instead of all weights, and the high codes have their own positions.
    """
    return SuperResolutionRecipe(
        adapter=AdapterConfig(rank=64, alpha=64.0, trains_norms=True),
        high_positions="after_low",
        masking=MaskingConfig(masked_codes=0.8),
        token_loss=TokenLossConfig(normaliser="legal"),
        attention="fused",
        training=TrainingConfig(
            num_steps=1_200,
            batch_size=4,
            learning_rate=1e-3,
            precision="auto",
            compile=True,
            log_every_steps=10,
            sample_every_steps=200,
            checkpoint_every_steps=100,
        ),
    )


def tiny() -> SuperResolutionRecipe:
    """An adapter so small that a test trains it.

    Claim: runs the whole path in seconds; draws noise.
    Command: cogview train super-resolution tiny --data TOKENS --low TOKENS --base MODEL --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return SuperResolutionRecipe(
        adapter=AdapterConfig(rank=2, alpha=4.0),
        high_positions="after_low",
        token_loss=TokenLossConfig(normaliser="legal"),
        training=TrainingConfig(
            num_steps=20,
            batch_size=4,
            learning_rate=3e-3,
            log_every_steps=5,
            sample_every_steps=10,
            checkpoint_every_steps=10,
        ),
    )
