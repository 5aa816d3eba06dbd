"""Training run of an upscaler."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cogview.data.loader import mask_batches
from cogview.data.super_resolution import SuperResolutionBatches, SuperResolutionShards
from cogview.generation.contact_sheet import contact_sheet, save_sheet
from cogview.generation.pipeline import Pipeline
from cogview.generation.super_resolution import SuperResolution
from cogview.image.pixels import tensor_to_images
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.recipes.config import SuperResolutionRecipe
from cogview.runs.finetune import check_base, finetune, open_tokens
from cogview.runs.finetune_card import finetune_card
from cogview.runs.training import DryRunResult, TrainingResult
from cogview.runs.training_options import SuperResolutionOptions
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.transformer.initialisation import super_resolution_positions

NUM_SAMPLES = 4


def train_super_resolution(
    recipe: SuperResolutionRecipe, options: SuperResolutionOptions
) -> TrainingResult | DryRunResult | None:
    """Train an upscaling adapter and write sample sheets of upscaled pixels, samples and originals.

    Args:
        recipe: adapter and training.
        options: its files.

    Returns:
        The result; None in all processes but the first.
    """
    model = load_pretrained(find_model_folder(options.base))
    check_base(model, "super-resolution")
    small, large = open_tokens(model, options.low), open_tokens(model, options.data)
    largest = None if options.windows is None else open_tokens(model, options.windows)
    pairs = SuperResolutionShards(low=small, high=large)
    template = SuperResolutionTemplate.of(model.template, recipe.high_positions)
    batches = SuperResolutionBatches(
        pairs,
        template,
        recipe.training.seed,
        recipe.training.batch_size,
        windows=None if largest is None else SuperResolutionShards(low=large, high=largest),
        window_share=recipe.window_share,
        dropped_texts=recipe.masking.dropped_texts,
    )
    positions = None
    if recipe.high_positions == "after_low":
        positions = super_resolution_positions(
            model.transformer.embedding.position_table().detach()[: template.low.num_positions],
            template.low.code_positions(0),
            template.high_code_positions(),
            template.low_grid,
            template.num_positions,
        )
    if recipe.adapter is not None and not recipe.adapter.token_rows:
        separators = (*template.opening.tolist(), template.vocabulary.separator("MASK"))
        recipe = dataclasses.replace(
            recipe, adapter=dataclasses.replace(recipe.adapter, token_rows=separators)
        )
    return finetune(
        recipe,
        model,
        "super-resolution",
        mask_batches(batches, recipe.training.seed, recipe.masking),
        options,
        positions=positions,
        words=large.words,
        card=finetune_card(
            "An upscaler for a CogView model",
            "image-to-image",
            'cogview upscale "a cat" PICTURES --upscaler PATH_OF_THIS_FOLDER\n'
            'cogview generate "a cat" --upscale 4 --upscaler PATH_OF_THIS_FOLDER',
            base=options.base,
            data=options.data,
            num_pictures=len(pairs),
            licence=options.licence,
            recipe=recipe,
        ),
        facts={
            "window_share": recipe.window_share,
            **dataclasses.asdict(recipe.masking),
            "num_pairs": len(pairs),
            "tokens": large.fingerprint,
            "low_tokens": small.fingerprint,
            "window_tokens": None if largest is None else largest.fingerprint,
        },
        sample=partial(_draw_samples, model, template, pairs),
    )


def _draw_samples(
    base: PretrainedModel,
    template: SuperResolutionTemplate,
    pairs: SuperResolutionShards,
    trained: TaskModel,
    path: Path,
) -> None:
    """Draw a sheet of the pixels of low codes, of codes sampled from them, and of the true high codes."""
    indices = range(min(NUM_SAMPLES, len(pairs)))
    pipeline = Pipeline(base)
    texts = [pairs.low.pieces(index, 0) for index in indices]
    crops = [pairs.crop(index, 0, 0, template.low_grid) for index in indices]
    low, true = (torch.from_numpy(np.stack(codes).astype(np.int64)) for codes in zip(*crops, strict=True))
    drawn = SuperResolution(pipeline.model.runner_of(trained), template).upscale(low, texts, list(indices))
    columns = [
        tensor_to_images(pipeline.image_tokenizer.decode(codes.to(pipeline.device)))
        for codes in (low, drawn, true)
    ]
    rows = [
        [image.resize(shown[-1].size, Image.Resampling.BICUBIC) for image in shown]
        for shown in zip(*columns, strict=True)
    ]
    captions = [pipeline.text_tokenizer.decode(template.low.clip(each).tolist()) for each in texts]
    save_sheet(contact_sheet(rows, captions), path)
