"""Recipes of text-to-image transformers, stage 2."""

from dataclasses import replace

from cogview.data.config import MaskingConfig
from cogview.recipes.config import FewCodesFirstConfig, TextToImageRecipe, TokenShape
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import (
    GridConfig,
    InitialisationConfig,
    ThreeRegionConfig,
    TransformerConfig,
    masks_by_layer,
)


def _start_of(recipe: TextToImageRecipe, *, num_steps: int, batch_size: int) -> TextToImageRecipe:
    """Return the first phase of a recipe: sequences of few codes, of which none to all are masked."""
    return replace(
        recipe,
        masking=replace(recipe.masking, masked_codes=1.0, kept_codes=64),
        training=replace(
            recipe.training,
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=2e-3,
            muon_learning_rate=0.02,
            final_learning_rate_fraction=0.2,
            sample_every_steps=0,  # whole pictures come later
        ),
    )


def bundled_start() -> TextToImageRecipe:
    """The first half of `bundled`: meanings of words, and places of things.

    Claim: prefers a caption to the same one with its two things exchanged (`bench/binding.py`).
    Command: cogview train text-to-image bundled-start --data TOKENS --out RUN
    Cost: 52 minutes on 2 CPU cores with bfloat16, beside other work; four times that without.
    Expected: the true caption is preferred in 100 % of 200 (`docs/decisions/bundled-model-from-scratch.md`).

    Differs from the paper: as `bundled` does; and a sequence has a quarter of a picture's codes. On average half of
    them are masked, so that the model has to rely on the text.
    """
    return _start_of(bundled(), num_steps=5_000, batch_size=24)


def bundled() -> TextToImageRecipe:
    """The transformer that ships with the project, on whole pictures; it goes on from `bundled-start`.

    Claim: draws scenes of one to four known objects in combinations it has not seen, on 128 x 128 pixels.
    Command: cogview train text-to-image bundled --data TOKENS --start-from START --out RUN
    Cost: an hour on 2 CPU cores with bfloat16, beside other work; four times that without.
    Expected: see the model card in `src/cogview/bundled/README.md`.

    Differs from the paper: the embedding's gradient is not shrunk, since bfloat16 needs no loss scale; branches start
    small, positions as rows and columns, and Muon turns the matrices (`docs/decisions/transformer-initialisation.md`);
    text weighs a tenth, a tenth of the texts is dropped and up to 15 % of a picture's codes are hidden
    (`docs/decisions/few-masked-codes.md`).
    """
    return TextToImageRecipe(
        # Compiled, the paper's formula is 1.1 times as fast on CPU as the fused kernel at this length.
        transformer=TransformerConfig(
            num_layers=6,
            hidden_size=256,
            num_heads=4,
            attention="relaxed",
            embedding_gradient_scale=1.0,
        ),
        initialisation=InitialisationConfig(branch_gain=0.05, positions="rows_and_columns"),
        max_text_pieces=32,
        image_positions="fixed",
        token_loss=TokenLossConfig(normaliser="legal", text_weight=0.1),
        masking=MaskingConfig(dropped_texts=0.1, masked_codes=0.15),
        text_case="usual",
        training=TrainingConfig(
            num_steps=6_000,
            batch_size=8,
            optimizer="muon",
            learning_rate=7e-4,
            muon_learning_rate=0.007,
            final_learning_rate_fraction=0.01,
            precision="auto",
            compile=True,
            log_every_steps=25,
            sample_every_steps=1_000,
            checkpoint_every_steps=250,
        ),
        made_for=TokenShape(num_image_codes=2_048, num_text_pieces=8_000, grid_rows=16, grid_columns=16),
    )


def world_start() -> TextToImageRecipe:
    """The first half of `world`: meanings of words, colours and sizes, and places of things.

    Claim: as `bundled-start`, in the larger world.
    Command: cogview train text-to-image world-start --data TOKENS --out RUN
    Cost: to be measured.
    Expected: to be measured.

    Differs from the paper: as `bundled-start` does; edges are kept four times as often as bare ground.
    """
    recipe = _start_of(world(), num_steps=6_000, batch_size=48)
    return replace(recipe, masking=replace(recipe.masking, weight_of_changes=4.0))


def world() -> TextToImageRecipe:
    """The transformer for a larger world, on whole pictures; it goes on from `world-start`.

    Claim: draws scenes of 256 things in three styles, in groups, colours and sizes.
    Command: cogview train text-to-image world --data TOKENS --start-from START --out RUN
    Cost: to be measured.
    Expected: to be measured.

    Differs from the paper: as `bundled` does.
    """
    recipe = bundled()
    return replace(
        recipe,
        max_text_pieces=40,
        training=replace(recipe.training, num_steps=12_000, sample_every_steps=2_000),
    )


def bundled_gpu_start() -> TextToImageRecipe:
    """The first half of `bundled-gpu`, as `bundled-start` is of `bundled`.

    Claim: words and things of the whole table, before whole pictures.
    Command: cogview train text-to-image bundled-gpu-start --data TOKENS --out RUN
    Cost: to be measured on a GPU.
    Expected: to be measured; listed as pending in `bench/README.md`.
    """
    return _start_of(bundled_gpu(), num_steps=10_000, batch_size=256)


def bundled_gpu() -> TextToImageRecipe:
    """The largest transformer whose float16 weights fit the repository, for one GPU; goes on from `bundled-gpu-start`.

    Claim: the world of `bundled`, sharper, with all objects of the table in five styles.
    Command: cogview train text-to-image bundled-gpu --data TOKENS --start-from START --out RUN
    Cost: 24 M parameters, about 370 M tokens; to be measured on a GPU.
    Expected: to be measured; listed as pending in `bench/README.md`.
    """
    return TextToImageRecipe(
        transformer=TransformerConfig(num_layers=11, hidden_size=384, num_heads=6, dropout=0.1),
        initialisation=InitialisationConfig(branch_gain=0.05, positions="rows_and_columns"),
        max_text_pieces=32,
        image_positions="fixed",
        token_loss=TokenLossConfig(normaliser="legal", text_weight=0.1),
        masking=MaskingConfig(dropped_texts=0.1, masked_codes=0.5),
        text_case="usual",
        training=TrainingConfig(
            num_steps=20_000,
            batch_size=64,
            optimizer="muon",
            learning_rate=1e-3,
            muon_learning_rate=0.01,
            final_learning_rate_fraction=0.02,
            precision="auto",
            compile=True,
            log_every_steps=50,
            sample_every_steps=2_000,
            checkpoint_every_steps=1_000,
        ),
        made_for=TokenShape(num_image_codes=4_096, num_text_pieces=8_000, grid_rows=16, grid_columns=16),
    )


def small() -> TextToImageRecipe:
    """A small transformer for one's own folder of some hundred to some thousand pictures.

    `--training.num-steps` alone sets its time: everything else is a fraction of it.

    Claim: begins to draw in the manner of a small folder's pictures, in the colours that the words ask for.
    Command: cogview train text-to-image small --data TOKENS --start-from bundled --out RUN
    Cost: see the table in `docs/your-own-pictures.md`.
    Expected: the share of captions drawn that `docs/your-own-pictures.md` lists (`bench/own_pictures.py`).

    Differs from the paper: as `bundled` does, and it has the shape of the model that `bundled` makes, so that it can
    start from it. Three steps of five have few codes, to learn the texts; then codes are mixed, less and less, without
    which the model memorizes its pictures and ignores the words (`docs/decisions/mixed-codes.md`).
    """
    recipe = bundled()
    return replace(
        recipe,
        few_codes_first=FewCodesFirstConfig(fraction=0.6),
        masking=replace(recipe.masking, masked_codes=0.0),
        mixed_codes=0.5,
        mixed_codes_at_end=0.1,
        training=replace(
            recipe.training,
            num_steps=1_500,
            learning_rate=1.5e-3,
            muon_learning_rate=0.015,
            final_learning_rate_fraction=0.05,
            compile=False,  # two shapes would take a minute each to compile
            log_every_steps=20,
            sample_every_steps=500,
            checkpoint_every_steps=250,
        ),
    )


def tiny() -> TextToImageRecipe:
    """A transformer so small that a test trains it.

    Claim: runs the whole path in seconds; draws nothing worth looking at.
    Command: cogview train text-to-image tiny --data TOKENS --out RUN
    Cost: seconds on one core.
    Expected: the loss falls.
    """
    return TextToImageRecipe(
        transformer=TransformerConfig(num_layers=2, hidden_size=64, num_heads=2),
        max_text_pieces=16,
        image_positions="fixed",
        token_loss=TokenLossConfig(normaliser="legal"),
        training=TrainingConfig(
            num_steps=20,
            batch_size=4,
            learning_rate=3e-3,
            log_every_steps=5,
            sample_every_steps=10,
            checkpoint_every_steps=10,
        ),
        made_for=TokenShape(num_image_codes=64, num_text_pieces=500, grid_rows=4, grid_columns=4),
    )


def paper_4b() -> TextToImageRecipe:
    """The transformer of the paper: 48 layers, width 2,560, 40 heads.

    Claim: the model of the paper, 4.0 B parameters.
    Command: cogview train text-to-image paper-4b --data TOKENS --out RUN
    Cost: the paper used 512 V100 of 32 GB; 144,000 steps of 6,144 sequences.
    Expected: the paper's table 1.
    """
    return TextToImageRecipe(
        transformer=TransformerConfig(num_layers=48, hidden_size=2560, num_heads=40, dropout=0.1),
        max_text_pieces=60,
        image_positions="after_text",
        token_loss=TokenLossConfig(),
        training=TrainingConfig(
            num_steps=144_000,
            batch_size=6_144,
            num_micro_batches=512,
            learning_rate=3e-4,
            precision="auto",
            compile=True,
            max_rollbacks=10,
        ),
    )


def _sized(num_layers: int, hidden_size: int, num_heads: int) -> TextToImageRecipe:
    """Return `paper_4b` at another size."""
    recipe = paper_4b()
    transformer = replace(
        recipe.transformer, num_layers=num_layers, hidden_size=hidden_size, num_heads=num_heads
    )
    return replace(recipe, transformer=transformer)


def toy() -> TextToImageRecipe:
    """The toy of figure 4(b): 64 layers, width 1,024, on which stabilisers are compared.

    Claim: 0.87 B parameters, deep enough for what goes wrong in deep ones.
    Command: cogview train text-to-image toy --data TOKENS --out RUN
    Cost: `cogview plan toy --device h100` tells; the paper does not.
    Expected: not measured.

    Differs from / not told by the paper: it has batches of 4 and rates of 0.1 and 0.01 there, made to break it; here a
    rate to learn by. Its heads are not told; they are as wide as the 4 B model's, 64.
    """
    recipe = _sized(num_layers=64, hidden_size=1024, num_heads=16)
    training = replace(recipe.training, num_steps=10_000, batch_size=64, num_micro_batches=16)
    return replace(recipe, training=training)


def base_500m() -> TextToImageRecipe:
    """A transformer of 500 M parameters, the smallest that the paper speaks of.

    Claim: 0.51 B parameters.
    Command: cogview train text-to-image base-500m --data TOKENS --out RUN
    Cost: `cogview plan base-500m --device h100` tells.
    Expected: not measured.

    Differs from / not told by the paper: no shape and no schedule; 22 layers of width 1,280 with heads of 64 give the
    number, and the batch is a twelfth of the 4 B model's.
    """
    recipe = _sized(num_layers=22, hidden_size=1280, num_heads=20)
    training = replace(recipe.training, batch_size=512, num_micro_batches=64)
    return replace(recipe, training=training)


def fashion_3b() -> TextToImageRecipe:
    """The transformer of section 3.4: fashion in 50 x 50 codes of a VQGAN.

    Claim: 3.0 B parameters for sequences of 2,564 tokens.
    Command: cogview train text-to-image fashion-3b --data TOKENS --out RUN
    Cost: `cogview plan fashion-3b --device h100` tells; the paper does not.
    Expected: not measured.

    Differs from / not told by the paper: no shape and no schedule; 36 layers of the 4 B model's width give the number,
    and steps, batch and rate are a guess from the 4 B model's. Sparse attention has the numbers of the
    release. There is no dropout, since FlexAttention, the fast way to sparse attention on a GPU, has none.
    """
    recipe = _sized(num_layers=36, hidden_size=2560, num_heads=40)
    transformer = replace(recipe.transformer, attention_pattern="three_region", dropout=0.0)
    training = replace(recipe.training, num_steps=50_000, batch_size=1_024, num_micro_batches=256)
    made_for = TokenShape(num_image_codes=16_384, grid_rows=50, grid_columns=50)
    return replace(recipe, transformer=transformer, training=training, made_for=made_for)


def fashion_small() -> TextToImageRecipe:
    """The fashion recipe at a size that two CPU cores run, on 64 x 64 pixels as 16 x 16 codes of `vqgan small`.

    Claim: the whole chain of section 3.4, sparse attention included; draws clothing of the class that a text names.
    Command: cogview train text-to-image fashion-small --data TOKENS --out RUN
    Cost: 2,000 steps of 2,200 tokens, 23 minutes of a CPU core. `docs/fashion.md` has the chain before it.
    Expected: with the bundled image tokenizer three quarters of the pictures are classified as the class of the text,
    and four fifths of real ones (`bench/clothing.py`).

    Differs from the paper: as `bundled` does, at a smaller size; the regions of attention are cut down to 276 tokens.
    """
    return TextToImageRecipe(
        transformer=TransformerConfig(
            num_layers=6,
            hidden_size=192,
            num_heads=3,
            attention_pattern="three_region",
            three_region=ThreeRegionConfig(
                block_tokens=32, key_window_blocks=2, num_text_and_pivot_tokens=96
            ),
        ),
        initialisation=InitialisationConfig(branch_gain=0.05, positions="rows_and_columns"),
        max_text_pieces=16,
        image_positions="fixed",
        token_loss=TokenLossConfig(normaliser="legal", text_weight=0.1),
        masking=MaskingConfig(dropped_texts=0.1, masked_codes=0.15),
        training=TrainingConfig(
            num_steps=2_000,
            batch_size=8,
            optimizer="muon",
            muon_weight_decay=0.003,  # too short a run for attention to harden in
            learning_rate=1.5e-3,
            final_learning_rate_fraction=0.05,
            precision="auto",
            log_every_steps=20,
            sample_every_steps=500,
            checkpoint_every_steps=250,
        ),
        made_for=TokenShape(num_image_codes=1_024, num_text_pieces=8_000, grid_rows=16, grid_columns=16),
    )


def large_8b() -> TextToImageRecipe:
    """The paper's largest: 72 layers, width 3,072.

    Claim: 8.3 B parameters.
    Command: cogview train text-to-image large-8b --data TOKENS --out RUN
    Cost: `cogview plan large-8b --device h100 --num-devices 64` tells; the paper does not.
    Expected: not measured.

    Differs from / not told by the paper: heads and schedule; heads are as wide as the 4 B model's, 64, and the
    schedule is that one's.
    """
    return _sized(num_layers=72, hidden_size=3072, num_heads=48)


def rudalle_1b3() -> TextToImageRecipe:
    """ruDALL-E's transformer (Malevich): masks by row and column, padded texts, a head of its own.

    Claim: the shape of the published weights, 1.3 B parameters, which `cogview convert` reads.
    Command: cogview train text-to-image rudalle-1b3 --data TOKENS --out RUN
    Cost: `cogview plan rudalle-1b3 --device h100` tells.
    Expected: not measured.

    Differs from the paper: codes see a row, a column or a square of earlier ones. Not told by ruDALL-E: its schedule.
    """
    return _grid_recipe(num_layers=24, hidden_size=2048, num_heads=16, num_text=128, side=32)


def rudolph_350m() -> TextToImageRecipe:
    """RuDOLPH's transformer of 350 M parameters, for 16 x 16 codes; without the text after the picture.

    Claim: the shape of the published weights, which `cogview convert` reads, but for the second text.
    Command: cogview train text-to-image rudolph-350m --data TOKENS --out RUN
    Cost: `cogview plan rudolph-350m --device h100` tells.
    Expected: not measured.

    Differs from the paper: as `rudalle-1b3` does.
    """
    return _grid_recipe(
        num_layers=24, hidden_size=1024, num_heads=16, num_text=64, side=16, last=9, every_fourth=7
    )


def _grid_recipe(
    *,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_text: int,
    side: int,
    last: int = 11,
    every_fourth: int | None = None,
) -> TextToImageRecipe:
    """Return a recipe with a mask of the picture's grid in each layer."""
    recipe = _sized(num_layers, hidden_size, num_heads)
    masks, kernel_sizes = masks_by_layer(num_layers, last, every_fourth)
    transformer = replace(
        recipe.transformer,
        norm_scope="none",
        attention_pattern="grid",
        position_table="rows_and_columns",
        grid=GridConfig(masks=masks, kernel_sizes=kernel_sizes),
        head="own",
        dropout=0.0,
    )
    return replace(
        recipe,
        transformer=transformer,
        max_text_pieces=num_text - 2,
        image_positions="fixed",
        padded_texts=True,
        token_loss=TokenLossConfig(text_weight=1 / 7),
        training=replace(recipe.training, batch_size=512, num_micro_batches=128),
        made_for=TokenShape(num_text_pieces=16_384, grid_rows=side, grid_columns=side),
    )
