"""Training run of stage 2, the text-to-image transformer."""

import copy
import dataclasses
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cogview.data.config import MaskingConfig
from cogview.data.loader import (
    BatchSource,
    MixedCodeBatches,
    TokenBatches,
    TwoPhaseBatches,
    linear_schedule,
    mask_batches,
)
from cogview.data.ranks import Ranks
from cogview.data.shards import TokenShards
from cogview.decoding.guess_table import MAX_PICTURES, GuessTable
from cogview.errors import CogViewError, UsageError
from cogview.files import sha256_of
from cogview.generation.top_p_calibration import TopPCalibration, calibrate_top_p
from cogview.models.card import bare_card
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.models.pretrained import PretrainedModel
from cogview.models.weights import fingerprint_of_transformer
from cogview.planning import MFU
from cogview.planning.devices import own_device
from cogview.planning.plan import plan_training
from cogview.planning.training import TrainingPlanner
from cogview.recipes.config import TextToImageRecipe
from cogview.recipes.resolved import given_beside_tokens, resolved, shape_of_tokens
from cogview.runs.samples import captions_of, draw_samples
from cogview.runs.text_case import refuse_capitals
from cogview.runs.tokenizers import (
    IMAGE_TOKENIZER,
    TEXT_TOKENIZER,
    open_image_tokenizer,
    open_text_tokenizer,
    unless_bundled,
)
from cogview.runs.training import DryRunResult, TrainingResult, carry_out
from cogview.runs.training_options import TextToImageOptions
from cogview.sequence.padded_text import PaddedTextTemplate
from cogview.sequence.template import Codes, Pieces
from cogview.training.config import TokenLossConfig
from cogview.training.progress import say
from cogview.training.transformer import TransformerTask, evaluate_losses
from cogview.transformer.adapter import POSITIONS, lengthen_text
from cogview.transformer.initialisation import start_branches, start_positions
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import sees_all

MAX_EVALUATED = 512
NUM_MEASURED = 16
"""Pictures that top-p is chosen on: one batch."""
GUIDANCE = 1.5
"""Guidance of models trained with dropped texts."""


def train_text_to_image(
    recipe: TextToImageRecipe, options: TextToImageOptions
) -> TrainingResult | DryRunResult | None:
    """Train a transformer on tokens, write sample sheets, and export the whole model.

    Args:
        recipe: shape and training.
        options: its files.

    Returns:
        The result; None in all processes but the first.
    """
    data, out, held_out = options.data, options.out, options.held_out
    shards = TokenShards(data)
    held_out_shards = None
    if held_out is not None:
        held_out_shards = TokenShards(
            held_out, image_tokenizer=shards.image_tokenizer, text_tokenizer=shards.text_tokenizer
        )
    model = _new_model(recipe, shards, data)
    for tokens in filter(None, (shards, held_out_shards)):
        refuse_capitals(tokens, model.text_case, model.text_tokenizer)
    source = None if options.start_from is None else find_model_folder(unless_bundled(options.start_from))
    if source is not None:
        model = _with_weights(model, source)
    texts = options.sample_texts or captions_of(held_out_shards or shards, model)
    if not all(text.strip() for text in texts):
        raise UsageError("a text of --sample-texts is empty: give texts for the sample sheets")

    seed = recipe.training.seed

    def whole_pictures(tokens: TokenShards, dropped_texts: float = 0.0) -> TokenBatches:
        return TokenBatches(tokens, model.template, seed, recipe.training.batch_size, dropped_texts)

    read = _batches(recipe, whole_pictures(shards, recipe.masking.dropped_texts))
    # Each process trains its part of the transformer; the model gets all of it to draw and export.
    alone = Ranks.from_environment(os.environ).num_ranks == 1
    trained = model.transformer if alone else copy.deepcopy(model.transformer)
    # A model trained by several processes is exported on the CPU, too slow to measure top-p: it keeps the default.
    measured = _spread_pairs(held_out_shards or shards) if alone else []
    task = TransformerTask(trained, read, recipe.token_loss)

    @lru_cache(maxsize=1)  # the sample sheet and the export after a step have the same weights
    def calibrated(fingerprint: str) -> TopPCalibration:
        return calibrate_top_p(model, measured)

    def drawing_well() -> PretrainedModel:
        if not measured:
            return model
        return _drawing_well(model, calibrated(fingerprint_of_transformer(model.transformer.state_dict())))

    evaluate: Callable[[], dict[str, dict[str, float]]] | None = None
    if held_out_shards is not None:
        # Opened before the training, so that tokens that do not fit fail early.
        whole_pictures(held_out_shards)
        batch_size = recipe.training.batch_size
        evaluate = partial(_held_out_losses, model, held_out_shards, recipe.token_loss, batch_size)

    return carry_out(
        task,
        recipe.training,
        options,
        recipe={
            "transformer": model.transformer.config,
            "initialisation": recipe.initialisation if source is None else None,
            "start_from": source and sha256_of(source / "model.safetensors"),
            "template": model.template,
            "token_loss": recipe.token_loss,
            **dataclasses.asdict(recipe.masking),
            "mixed_codes": recipe.mixed_codes,
            "mixed_codes_at_end": recipe.mixed_codes_at_end,
            "few_codes_first": recipe.few_codes_first,
            "text_tokenizer": shards.text_tokenizer,
            "image_tokenizer": shards.image_tokenizer,
            "num_pairs": len(shards),
            "tokens": shards.fingerprint,
        },
        sample=lambda num_steps: draw_samples(
            drawing_well(), texts, out / "samples" / f"step-{num_steps:08d}.png"
        ),
        export=lambda folder: save_pretrained(
            dataclasses.replace(drawing_well(), guess_table=guess_table(shards)),
            folder,
            torch.float16,
        ),
        evaluate=evaluate,
        whole=None if alone else model.transformer,
        foretell=partial(_planned, recipe, model),
    )


def _planned(recipe: TextToImageRecipe, model: PretrainedModel, device: torch.device) -> dict[str, Any]:
    """Return the planned memory and time of training on a device."""
    config, num_devices = model.transformer.config, Ranks.from_environment(os.environ).num_ranks
    planner = TrainingPlanner(recipe, config, model.template, own_device(device), num_devices)
    return plan_training(planner, MFU)


def _batches(recipe: TextToImageRecipe, whole: TokenBatches) -> BatchSource:
    """Return the batches of a run, first of few codes per picture and then of all, if the recipe masks codes."""
    seed, num_steps, start = recipe.training.seed, recipe.training.num_steps, recipe.few_codes_first
    num_first_steps = round(start.fraction * num_steps)
    read: BatchSource = whole
    last = recipe.mixed_codes if recipe.mixed_codes_at_end is None else recipe.mixed_codes_at_end
    if recipe.mixed_codes or last:
        read = MixedCodeBatches(
            read, linear_schedule(recipe.mixed_codes, last, num_first_steps, num_steps), seed
        )
    read = mask_batches(read, seed, recipe.masking)
    if not num_first_steps:
        return read
    # As many codes per step as with whole pictures, so that a step costs about the same.
    num_pictures = recipe.training.batch_size * max(1, whole.template.num_codes_per_image // start.kept_codes)
    few = MaskingConfig(masked_codes=start.masked_codes, kept_codes=start.kept_codes)
    first = mask_batches(whole.of_size(num_pictures), seed, few)
    return TwoPhaseBatches(first, read, num_first_steps)


def _new_model(recipe: TextToImageRecipe, shards: TokenShards, data: Path) -> PretrainedModel:
    """Return a model with a new transformer and the tokenizers beside the tokens."""
    for name in (TEXT_TOKENIZER, IMAGE_TOKENIZER):
        if not (data / name).exists():
            raise CogViewError(f"{data} does not hold {name}: make the tokens with `cogview tokenize`.")
    text_tokenizer, image_tokenizer = open_text_tokenizer(data), open_image_tokenizer(data)
    for what, got, wanted in (
        ("text", text_tokenizer.fingerprint, shards.text_tokenizer),
        ("image", image_tokenizer.fingerprint, shards.image_tokenizer),
    ):
        if got != wanted:
            raise CogViewError(
                f"The {what} tokenizer in {data} has fingerprint {got}, but the tokens were made by {wanted}: make "
                "them again with `cogview tokenize`."
            )
    if flag := given_beside_tokens(recipe):
        raise UsageError(f"{flag} follows from the tokens: leave it out")
    config, template = resolved(dataclasses.replace(recipe, made_for=shape_of_tokens(shards)))
    if config.attention_pattern == "three_region":
        is_first = Ranks.from_environment(os.environ).rank == 0
        if is_first and sees_all(template.max_prefix_tokens, config.three_region):
            say(
                f"Sequences of {template.max_tokens} tokens are so short that three-region attention sees all of them, "
                "like dense attention and slower: give smaller numbers of --transformer.three-region."
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        transformer = Transformer(config)
    start_branches(transformer, recipe.initialisation.branch_gain)
    if recipe.initialisation.positions == "rows_and_columns":
        start_positions(transformer, template.code_positions(0), template.grid_rows, template.grid_columns)
    return PretrainedModel(
        source=transformer,
        template=template,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        guidance=GUIDANCE if recipe.masking.dropped_texts else 1.0,
        words=shards.words,
        text_case="lower" if shards.text_case == "lower" else recipe.text_case,
    )


def _with_weights(model: PretrainedModel, folder: Path) -> PretrainedModel:
    """Return a new model with the weights and words of a folder of the same shape, template and tokenizers.

    If that model has shorter texts, its picture positions are shifted and the added text positions are new.
    """
    source = load_pretrained(folder)
    wanted_config, template = model.transformer.config, source.template
    weights = source.transformer.state_dict()
    # Computation and regularisation may change; the function that the weights stand for may not.
    free = ["attention", "embedding_gradient_scale", "dropout"]
    if type(template) is not type(model.template):
        raise CogViewError(
            f"{folder} has texts of fixed length, and this run's have any: train it further with cogview train style, "
            "for instance with --adapter.rank 32"
        )
    longer = template
    if not isinstance(template, PaddedTextTemplate) and template.image_positions == "fixed":
        num_pieces = max(template.max_text_pieces, model.template.max_text_pieces)
        longer = dataclasses.replace(template, max_text_pieces=num_pieces)
    if longer != template and longer == model.template:
        new = model.transformer.state_dict()[POSITIONS]
        weights[POSITIONS] = lengthen_text(weights[POSITIONS], new, 1 + template.max_text_pieces)
        template = longer
        free.append("num_positions")
    config = dataclasses.replace(
        source.transformer.config, **{name: getattr(wanted_config, name) for name in free}
    )
    for what, got, wanted in (
        ("transformer", config, wanted_config),
        ("template", template, model.template),
        ("text tokenizer", source.text_fingerprint, model.text_fingerprint),
        ("image tokenizer", source.image_fingerprint, model.image_fingerprint),
    ):
        if got != wanted:
            raise CogViewError(
                f"The {what} of {folder} is not that of this run ({_difference(got, wanted)}): take the recipe and the "
                "tokenizers that the model was trained with, or train it further with cogview train style."
            )
    model.transformer.load_state_dict(weights)
    # Words known to either model are known; if one has no list, neither has the result.
    return dataclasses.replace(model, words=model.words and source.words and model.words | source.words)


def _difference(got: Any, wanted: Any) -> str:
    """Say how two values differ; of configs only the fields that do."""
    if not dataclasses.is_dataclass(got):
        return f"{got}, wanted {wanted}"
    names = [field.name for field in dataclasses.fields(got)]
    pairs = [(name, getattr(got, name), getattr(wanted, name)) for name in names]
    return "; ".join(f"{name} is {one}, wanted {other}" for name, one, other in pairs if one != other)


def _spread_pairs(shards: TokenShards) -> list[tuple[Pieces, Codes]]:
    """Return a few pairs spread over the tokens, to choose sampling defaults on."""
    num = min(NUM_MEASURED, len(shards))
    indices = [len(shards) * number // num for number in range(num)]
    return [(shards.pieces(index, 0), shards.codes(index)) for index in indices]


def guess_table(shards: TokenShards) -> GuessTable:
    """Return the table of codes that usually follow each other in the tokens."""
    step = -(-len(shards) // MAX_PICTURES)
    codes = np.stack([shards.codes(index) for index in range(0, len(shards), step)])
    return GuessTable.of(codes.reshape(-1, *shards.grid))


def _drawing_well(model: PretrainedModel, measured: TopPCalibration) -> PretrainedModel:
    """Return the model with the best top-p for its current weights, and a card with the measurement."""
    card = bare_card(model.transformer.config, model.template, model.text_tokenizer, model.image_tokenizer)
    card += f"\nDraws with top-p {measured.top_p:g} unless told otherwise ({measured.line}).\n"
    return dataclasses.replace(model, top_p=measured.top_p, card=card)


def _held_out_losses(
    model: PretrainedModel, shards: TokenShards, config: TokenLossConfig, batch_size: int
) -> dict[str, dict[str, float]]:
    """Return the mean losses over held-out tokens, each picture once, with captions in turn."""
    pairs = [
        (shards.pieces(index, index % shards.num_captions(index)), shards.codes(index))
        for index in range(min(len(shards), MAX_EVALUATED))
    ]
    losses = evaluate_losses(model.transformer.eval(), model.template, pairs, batch_size, config)
    return {"held_out": losses}
