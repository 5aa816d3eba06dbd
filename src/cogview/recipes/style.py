"""Runs that learn a style from some pictures of it, beside a model that draws already."""

from cogview.recipes.config import StyleRecipe
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import AdapterConfig


def bundled() -> StyleRecipe:
    """A style for the bundled model, from about a thousand pictures.

    Claim: draws things that the model knows in a style that it has not seen.
    Command: cogview train style bundled --data TOKENS --style NAME --out RUN
    Cost: 600 steps of 8 pictures on 2 CPU cores; to be measured.
    Expected: to be measured; listed as pending in `bench/README.md`.

    Differs from the paper: an adapter is learnt instead of all weights.
    """
    return StyleRecipe(
        adapter=AdapterConfig(rank=16, alpha=32.0),
        token_loss=TokenLossConfig(normaliser="legal", text_weight=0.1),
        dropped_texts=0.1,
        masked_codes=0.15,
        training=TrainingConfig(
            num_steps=600,
            batch_size=8,
            learning_rate=1e-3,
            precision="auto",
            compile=True,
            log_every_steps=25,
            sample_every_steps=200,
            checkpoint_every_steps=100,
        ),
    )


def tiny() -> StyleRecipe:
    """An adapter so small that a test trains it.

    Claim: runs the whole path in seconds; changes little.
    Command: cogview train style tiny --data TOKENS --base MODEL --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return StyleRecipe(
        adapter=AdapterConfig(rank=2, alpha=4.0),
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
