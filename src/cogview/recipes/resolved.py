"""Transformer and template of a text-to-image recipe by the shape of its tokens."""

from dataclasses import replace

from cogview.data.shards import TokenShards
from cogview.recipes.config import TextToImageRecipe, TokenShape
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import TransformerConfig
from cogview.transformer.three_region import regions_for


def shape_of_tokens(shards: TokenShards) -> TokenShape:
    """Return the shape of existing tokens."""
    return TokenShape(
        num_image_codes=shards.num_codes,
        num_text_pieces=shards.num_pieces,
        grid_rows=shards.grid[0],
        grid_columns=shards.grid[1],
    )


def resolved(recipe: TextToImageRecipe) -> tuple[TransformerConfig, TextToImageTemplate]:
    """Return the configuration of the transformer and the template for the tokens of `recipe.made_for`."""
    tokens = recipe.made_for
    template = TextToImageTemplate(
        vocabulary=Vocabulary(num_image_codes=tokens.num_image_codes, num_text_pieces=tokens.num_text_pieces),
        grid_rows=tokens.grid_rows,
        grid_columns=tokens.grid_columns,
        max_text_pieces=recipe.max_text_pieces,
        image_positions=recipe.image_positions,
    )
    regions = recipe.transformer.three_region
    if recipe.transformer.attention_pattern == "three_region":
        regions = regions_for(template, regions)
    config = replace(
        recipe.transformer,
        three_region=regions,
        vocabulary_size=template.vocabulary.size,
        num_positions=template.num_positions,
    )
    return config, template
