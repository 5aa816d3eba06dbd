"""Recipes of captioning adapters."""

from cogview.recipes.config import CaptioningRecipe
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import AdapterConfig


def bundled() -> CaptioningRecipe:
    """Captions for the bundled model, as an adapter of some megabytes.

    Claim: names what stands in pictures of the default data, and ranks pictures by how well a text fits them.
    Command: cogview train captioning bundled --data TOKENS --held-out HELD_OUT --out RUN
    Cost: 7,000 steps of 64 pictures, four minutes of an H100 beside other runs; about ten hours of a CPU core.
    Expected: four fifths of unseen drawings named (`bench/captioning.py`); 8,000 steps of 16, rank 32 and a sixth of
    the pictures, three hours of a CPU core, named two thirds.

    Differs from the paper: an adapter is trained instead of all weights, at the positions at which the model draws.
    """
    return CaptioningRecipe(
        adapter=AdapterConfig(rank=64, alpha=128.0, trains_norms=True),
        trains_words=True,
        token_loss=TokenLossConfig(normaliser="legal"),
        training=TrainingConfig(
            num_steps=7_000,
            batch_size=64,
            learning_rate=2e-3,
            precision="auto",
            compile=True,
            log_every_steps=25,
            sample_every_steps=1_000,
            checkpoint_every_steps=250,
        ),
    )


def tiny() -> CaptioningRecipe:
    """An adapter so small that a test trains it.

    Claim: runs the whole path in seconds, and learns a few pictures by heart.
    Command: cogview train captioning tiny --data TOKENS --base MODEL --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return CaptioningRecipe(
        adapter=AdapterConfig(rank=4, alpha=8.0, trains_norms=True),
        token_loss=TokenLossConfig(normaliser="legal"),
        training=TrainingConfig(
            num_steps=60,
            batch_size=4,
            learning_rate=1e-2,
            log_every_steps=5,
            sample_every_steps=30,
            checkpoint_every_steps=20,
        ),
    )
