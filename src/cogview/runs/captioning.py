"""Training run of a captioner."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cogview.data.loader import TokenBatches
from cogview.data.shards import TokenShards
from cogview.errors import UsageError
from cogview.generation.contact_sheet import contact_sheet, save_sheet
from cogview.generation.pipeline import Pipeline
from cogview.image.pixels import tensor_to_images
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.recipes.config import CaptioningRecipe
from cogview.runs.finetune import check_base, finetune, open_tokens
from cogview.runs.finetune_card import finetune_card
from cogview.runs.training import DryRunResult, TrainingResult
from cogview.runs.training_options import CaptioningOptions
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.config import CaptionPositions
from cogview.sequence.right_text import RightTextTemplate
from cogview.sequence.template import Codes, Pieces

COMMANDS = """cogview caption PICTURES --captioner PATH_OF_THIS_FOLDER
cogview rank "a cat" PICTURES --captioner PATH_OF_THIS_FOLDER
cogview generate "a cat" --num-candidates 16 --keep 4 --captioner PATH_OF_THIS_FOLDER"""
NUM_SAMPLES = 8
MAX_EVALUATED = 64
NUM_COMPARED = 32
"""Captions in a held-out retrieval, the picture's own included."""


def train_captioning(
    recipe: CaptioningRecipe, options: CaptioningOptions
) -> TrainingResult | DryRunResult | None:
    """Train a captioning adapter and write sample sheets.

    Args:
        recipe: adapter and training.
        options: its files.

    Returns:
        The result; None in all processes but the first.
    """
    if not recipe.token_loss.text_weight:
        raise UsageError("--token-loss.text-weight 0 leaves nothing to learn: captions are text")
    model = load_pretrained(find_model_folder(options.base))
    shards = open_tokens(model, options.data)
    template = _template_for(model, recipe.positions)
    check_base(model, "captioning", template)
    training = recipe.training
    batches = TokenBatches(shards, template, training.seed, training.batch_size)
    held_out_shards = None
    if options.held_out is not None:
        held_out_shards = open_tokens(model, options.held_out)
        # Opened before the training, so that tokens that do not fit fail early.
        TokenBatches(held_out_shards, template, training.seed, training.batch_size)
    adapter = recipe.adapter
    if adapter is not None and not adapter.token_rows:
        rows: tuple[int, ...] = ()
        if not isinstance(template, RightTextTemplate):
            # A text-to-image model has never predicted the end of a text, nor text after a picture.
            rows = (template.end_token, *(template.vocabulary.separator(name) for name in ("EOI1", "ROI1")))
        if recipe.trains_words:
            first = template.vocabulary.text_pieces.start
            rows += tuple(first + piece for piece in shards.used_pieces().tolist())
        recipe = dataclasses.replace(recipe, adapter=dataclasses.replace(adapter, token_rows=rows))
    return finetune(
        recipe,
        model,
        "captioning",
        batches,
        options,
        words=shards.words,
        card=finetune_card(
            "A captioner for a CogView model",
            "image-to-text",
            COMMANDS,
            base=options.base,
            data=options.data,
            num_pictures=len(shards),
            licence=options.licence,
            recipe=recipe,
        ),
        facts={"num_pairs": len(shards), "tokens": shards.fingerprint},
        sample=partial(_write_samples, model, held_out_shards or shards),
        evaluate=None if held_out_shards is None else partial(_held_out_figures, model, held_out_shards),
    )


def _template_for(model: PretrainedModel, positions: CaptionPositions | None) -> CaptionTemplate:
    """Return the token order of captions: that of a text after the picture, if the model has one."""
    known = [
        model.adapters[name].template_of(CaptionTemplate, model.template.vocabulary)
        for name in model.names_for("captioning")
        if model.config.attention_pattern == "grid"
    ]
    right = [template for template in known if isinstance(template, RightTextTemplate)]
    return right[0] if right else CaptionTemplate.of(model.template, positions)


def _pipeline(base: PretrainedModel, trained: TaskModel) -> Pipeline:
    """Return a pipeline of the base with the current captioner."""
    return Pipeline(dataclasses.replace(base, adapters={"caption": trained}))


def _write_samples(base: PretrainedModel, shards: TokenShards, trained: TaskModel, path: Path) -> None:
    """Write a sheet of pictures spread over the tokens, each with its captions."""
    pipe = _pipeline(base, trained)
    num = min(NUM_SAMPLES, len(shards))
    codes = [
        torch.from_numpy(shards.codes(len(shards) * number // num).astype(np.int64)).view(shards.grid)
        for number in range(num)
    ]
    texts = [captions[0].text for captions in pipe.caption(codes)]
    rows = [tensor_to_images(pipe.image_tokenizer.decode(each[None])) for each in codes]
    save_sheet(contact_sheet(rows, texts), path)


def _held_out_figures(
    base: PretrainedModel, shards: TokenShards, trained: TaskModel
) -> dict[str, dict[str, float]]:
    """Return the mean CapLoss of held-out pairs, and how often a picture's own caption has the lowest.

    Distractors are the captions of the pictures that follow, without duplicates. Pictures with empty captions are left
    out.
    """
    captions = _pipeline(base, trained).model.caption_model()
    text_of = {
        index: pieces
        for index in range(min(MAX_EVALUATED, len(shards)))
        if len(pieces := shards.pieces(index, index % shards.num_captions(index)))
    }
    if not text_of:
        return {}
    texts, num = list(text_of.values()), len(text_of)
    pairs: list[tuple[Pieces, Codes]] = []
    own: list[int] = []
    for place, index in enumerate(text_of):
        following = [texts[(place + step) % num] for step in range(1, num)]
        different = {tuple(each): each for each in following if tuple(each) != tuple(texts[place])}
        own.append(len(pairs))
        compared = [texts[place], *list(different.values())[: NUM_COMPARED - 1]]
        pairs += [(text, shards.codes(index)) for text in compared]
    losses = captions.losses(pairs)
    is_first = [
        float(losses[start] <= losses[start:stop].min())
        for start, stop in zip(own, [*own[1:], len(pairs)], strict=True)
    ]
    return {
        "held_out": {
            "caption_loss_nats": float(losses[own].mean()),
            "own_caption_is_first": float(np.mean(is_first)),
        }
    }
