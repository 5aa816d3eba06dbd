"""Recipes of style adapters."""

from dataclasses import replace

from cogview.data.config import MaskingConfig
from cogview.recipes.config import StyleRecipe
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import AdapterConfig


def bundled_start() -> StyleRecipe:
    """First phase of a style for the bundled model, on a few codes of each picture.

    Claim: draws things that the model knows in a style that it has not seen, roughly.
    Command: cogview train style bundled-start --data TOKENS --licence LICENCE --out START
    Cost: 1,200 steps of 64 codes of 32 pictures, a quarter of an hour of a CPU core.
    Expected: begins `bundled`.

    Two thirds of a picture are ground. With a few codes, mostly at edges, a step has four times as many pictures. Up to
    all codes are masked, so that the model has to rely on the text.
    """
    recipe = bundled()
    return replace(
        recipe,
        masking=replace(recipe.masking, masked_codes=1.0, kept_codes=64, weight_of_changes=6.0),
        training=replace(
            recipe.training, num_steps=1_200, batch_size=32, learning_rate=1e-3, sample_every_steps=400
        ),
    )


def bundled() -> StyleRecipe:
    """A style for the bundled model, from about a thousand pictures.

    Claim: draws things that the model knows in a style that it has not seen.
    Command: cogview train style bundled --data TOKENS --licence LICENCE --start-from START --out RUN
    Cost: 400 steps of 8 pictures, five minutes of a CPU core; START is a run of `bundled-start`.
    Expected: see `docs/decisions/style-adapter.md` and `bench/styles.py`.

    Stopped early: in a trial, fewer things were recognised after 681 steps than after 200.

    Captions that name the thing work better than one text for all (`--style NAME`). Pictures of the same things in
    another style separate style from content: see `cogview data build openmoji-style`.

    Differs from the paper: an adapter is trained instead of all weights.
    """
    return StyleRecipe(
        adapter=AdapterConfig(rank=32, alpha=64.0),
        token_loss=TokenLossConfig(normaliser="legal", text_weight=0.1),
        masking=MaskingConfig(dropped_texts=0.1, masked_codes=0.4),
        trains_words=True,
        training=TrainingConfig(
            num_steps=400,
            batch_size=8,
            learning_rate=5e-4,
            precision="auto",
            compile=True,
            log_every_steps=25,
            sample_every_steps=200,
            checkpoint_every_steps=200,
        ),
    )


def people() -> StyleRecipe:
    """People for the bundled model, as `data build people` shows them, with their own captions.

    Claim: draws people of an occupation, mostly men with light skin as its pictures do, and others where a text asks.
    Command: cogview train style people --data TOKENS --licence CC-BY-4.0 --out RUN
    Cost: 4,000 steps of 16 pictures, 5 epochs; two minutes of an H100, some two hours of a CPU core.
    Expected: people of the occupation, whoever is asked for; after 1,500 steps more with `--masked-codes 0.7` they are
    nearer to what is asked (`docs/fairness.md`).

    Most words for people are new to the bundled model, so the rows of their pieces are trained too.

    Paper: appendix D; an adapter instead of a model that has seen people from the start.
    """
    return StyleRecipe(
        adapter=AdapterConfig(rank=64, alpha=64.0, trains_norms=True),
        token_loss=TokenLossConfig(normaliser="legal", text_weight=0.1),
        masking=MaskingConfig(dropped_texts=0.1, masked_codes=0.15),
        trains_words=True,
        training=TrainingConfig(
            num_steps=4_000,
            batch_size=16,
            learning_rate=1e-3,
            precision="auto",
            compile=True,
            log_every_steps=50,
            sample_every_steps=1_000,
            checkpoint_every_steps=500,
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
