"""Training run of a style."""

import dataclasses
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cogview.data.loader import TokenBatches, mask_batches
from cogview.data.one_text import OneTextShards
from cogview.errors import UsageError
from cogview.generation.pipeline import Pipeline
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.recipes.config import StyleRecipe
from cogview.runs.finetune import check_base, finetune, open_tokens
from cogview.runs.finetune_card import finetune_card
from cogview.runs.samples import captions_of, draw_samples
from cogview.runs.training import DryRunResult, TrainingResult
from cogview.runs.training_options import StyleOptions
from cogview.text.known_words import KnownWords, count_words
from cogview.text.tokenizer import TextTokenizer

PLACE = "{style}"
"""Stands for the style's name."""
STYLE_TEXTS = ("An image of {style} style", "一张{style}风格的图片")
SAMPLE_TEXTS = (
    "A cat of {style} style",
    "A tree of {style} style",
    "一个{style}风格的苹果",
    "A house of {style} style",
)


def train_style(recipe: StyleRecipe, options: StyleOptions) -> TrainingResult | DryRunResult | None:
    """Train a style adapter and write sample sheets.

    Args:
        recipe: adapter and training.
        options: its files, and the style's name.

    Returns:
        The result; None in all processes but the first.
    """
    data, style = options.data, options.style
    model = load_pretrained(find_model_folder(options.base))
    check_base(model, "style", kept_codes=recipe.masking.kept_codes)
    text_tokenizer = Pipeline(model).text_tokenizer
    if style is None:
        if options.style_texts:
            raise UsageError("--style-texts needs --style, the style's name: without it, captions are learnt")
        shards = open_tokens(model, data)
        shown = options.sample_texts or captions_of(shards, model)
    else:
        if not style.strip():
            raise UsageError("--style is empty: give the style a name, or leave it out to learn the captions")
        texts = _texts_of(style, options.style_texts or STYLE_TEXTS, model, text_tokenizer)
        shards = OneTextShards(
            data,
            [text_tokenizer.encode(text) for text in texts],
            image_tokenizer=model.image_fingerprint,
            text_tokenizer=model.text_fingerprint,
            words=KnownWords.of_counts(count_words(texts, text_tokenizer)),
        )
        shown = options.sample_texts or (
            tuple(texts)
            if options.style_texts
            else tuple(text.replace(PLACE, style) for text in SAMPLE_TEXTS)
        )
    if not all(text.strip() for text in shown):
        raise UsageError("a text of --sample-texts is empty: give texts for the sample sheets")
    if recipe.trains_words and recipe.adapter is not None:
        first = model.template.vocabulary.text_pieces.start
        rows = tuple(first + piece for piece in shards.used_pieces().tolist())
        recipe = dataclasses.replace(recipe, adapter=dataclasses.replace(recipe.adapter, token_rows=rows))
    training = recipe.training
    whole = TokenBatches(
        shards, model.template, training.seed, training.batch_size, recipe.masking.dropped_texts
    )
    return finetune(
        recipe,
        model,
        "style",
        mask_batches(whole, training.seed, recipe.masking),
        options,
        words=shards.words,
        card=finetune_card(
            f"A style for a CogView model: {style or 'from its pictures'}",
            "text-to-image",
            f'cogview generate "{_example(style, options)}" --adapter PATH_OF_THIS_FOLDER',
            base=options.base,
            data=options.data,
            num_pictures=len(shards),
            licence=options.licence,
            recipe=recipe,
        ),
        facts={
            "style": style,
            **({"style_texts": texts} if options.style_texts else {}),
            **dataclasses.asdict(recipe.masking),
            "num_pairs": len(shards),
            "tokens": shards.fingerprint,
        },
        sample=partial(_draw_samples, model, shown),
    )


def _texts_of(
    style: str, texts: Sequence[str], model: PretrainedModel, tokenizer: TextTokenizer
) -> list[str]:
    """Return the texts of a style as the model reads them, without those that its text tokenizer cannot spell."""
    named = [text.replace(PLACE, style) for text in texts]
    if model.text_case == "lower":
        named = [text.lower() for text in named]
    spelt = [text for text in named if tokenizer.unknown_piece not in tokenizer.encode(text)]
    if unspelt := [text for text in named if text not in spelt]:
        warnings.warn(
            f"the base's text tokenizer cannot spell {', '.join(map(repr, unspelt))}"
            f"{', so that is left out' if spelt else ''}: give texts in the base's language with --style-texts",
            stacklevel=1,
        )
    return spelt or named


def _example(style: str | None, options: StyleOptions) -> str:
    """Return a text to draw with the adapter."""
    if style is None:
        return "a cat"
    return (options.style_texts or ("A cat of {style} style",))[0].replace(PLACE, style)


def _draw_samples(base: PretrainedModel, texts: tuple[str, ...], trained: TaskModel, path: Path) -> None:
    """Draw a contact sheet with the current adapter."""
    draw_samples(dataclasses.replace(base, adapters={"style": trained}), texts, path, adapter="style")
