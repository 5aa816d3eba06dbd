"""Transformer and template of a text-to-image recipe by the shape of its tokens."""

from dataclasses import replace
from operator import attrgetter
from typing import Any

from cogview.data.shards import TokenShards
from cogview.recipes.config import TextToImageRecipe, TokenShape
from cogview.sequence.padded_text import PaddedTextTemplate
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import GridConfig, TransformerConfig
from cogview.transformer.three_region import regions_for


def shape_of_tokens(shards: TokenShards) -> TokenShape:
    """Return the shape of existing tokens."""
    return TokenShape(
        num_image_codes=shards.num_codes,
        num_text_pieces=shards.num_pieces,
        grid_rows=shards.grid[0],
        grid_columns=shards.grid[1],
    )


def given_beside_tokens(recipe: TextToImageRecipe) -> str | None:
    """Return the first flag of a recipe's transformer that the tokens overrule; None if none was given."""
    transformer, regions, grid = "transformer", "transformer.three_region", "transformer.grid"
    fields = [(transformer, name) for name in ("vocabulary_size", "num_positions")]
    fields += [(regions, name) for name in ("image_start_token", "num_image_tokens")]
    if recipe.padded_texts:
        fields += [(grid, name) for name in ("num_rows", "num_columns", "first_place", "first_position")]
    for path, name in fields:
        part = attrgetter(path)(recipe)
        if getattr(part, name) != getattr(type(part), name):
            return f"--{path}.{name}".replace("_", "-")
    return None


def resolved(recipe: TextToImageRecipe) -> tuple[TransformerConfig, TextToImageTemplate]:
    """Return the configuration of the transformer and the template for the tokens of `recipe.made_for`."""
    template = _template(recipe)
    regions = recipe.transformer.three_region
    if recipe.transformer.attention_pattern == "three_region":
        regions = regions_for(template, regions)
    config = replace(
        recipe.transformer,
        three_region=regions,
        grid=_grid(recipe.transformer.grid, template),
        vocabulary_size=template.vocabulary.size,
        num_positions=template.num_positions,
    )
    return config, template


def _template(recipe: TextToImageRecipe) -> TextToImageTemplate:
    """Return the template of a recipe."""
    tokens = recipe.made_for
    numbers = {"num_image_codes": tokens.num_image_codes, "num_text_pieces": tokens.num_text_pieces}
    shape: dict[str, Any] = {
        "grid_rows": tokens.grid_rows,
        "grid_columns": tokens.grid_columns,
        "max_text_pieces": recipe.max_text_pieces,
        "image_positions": recipe.image_positions,
    }
    if not recipe.padded_texts:
        return TextToImageTemplate(vocabulary=Vocabulary(**numbers), **shape)
    # Any text tokenizer will do: the tokens around a text are not its own.
    num_text_tokens = recipe.max_text_pieces + 2
    return PaddedTextTemplate(
        vocabulary=Vocabulary(**numbers, num_special_pieces=2, num_pads=num_text_tokens),
        num_text_tokens=num_text_tokens,
        opening=(tokens.num_text_pieces,),
        end_piece=tokens.num_text_pieces + 1,
        first_code_position=num_text_tokens,
        **shape,
    )


def _grid(grid: GridConfig, template: TextToImageTemplate) -> GridConfig:
    """Return the masks of a recipe for the picture of a template."""
    if not isinstance(template, PaddedTextTemplate):
        return grid
    return replace(
        grid,
        num_rows=template.grid_rows,
        num_columns=template.grid_columns,
        first_place=template.num_text_tokens,
        first_position=template.first_code_position,
    )
