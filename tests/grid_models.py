"""Tiny transformers with a mask of the picture's grid in each layer."""

import torch

from cogview.sequence.padded_text import PaddedTextTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import GridConfig, TransformerConfig
from cogview.transformer.model import Transformer

NUM_TEXT = 6


def grid_template(num_text: int = NUM_TEXT, side: int = 4, num_pieces: int = 30) -> PaddedTextTemplate:
    """Return a template of padded texts before a square of codes."""
    vocabulary = Vocabulary(num_image_codes=16, num_text_pieces=num_pieces, num_pads=num_text)
    return PaddedTextTemplate(
        vocabulary=vocabulary,
        grid_rows=side,
        grid_columns=side,
        max_text_pieces=num_text - 1,
        image_positions="fixed",
        num_text_tokens=num_text,
        opening=(2,),
        end_piece=3,
        first_code_position=num_text + 1,
    )


def grid_transformer(template: PaddedTextTemplate, *, wraps: bool = False, shift: int = 0) -> Transformer:
    """Return a random transformer with all masks, positions by row and column, and a head of its own.

    Args:
        template: of its sequences.
        wraps: whether squares of cells go on at the opposite edge.
        shift: tokens of the text that the masks count as cells.
    """
    grid = GridConfig(
        num_rows=template.grid_rows,
        num_columns=template.grid_columns,
        first_place=template.num_text_tokens - shift,
        first_position=template.first_code_position,
        masks=("row", "column", "convolution", "convolution"),
        kernel_sizes=(0, 0, 3, 5),
        wraps=wraps,
    )
    config = TransformerConfig(
        num_layers=4,
        hidden_size=32,
        num_heads=4,
        vocabulary_size=template.vocabulary.size,
        num_positions=template.num_positions + 5,
        norm_scope="none",
        attention_pattern="grid",
        position_table="rows_and_columns",
        grid=grid,
        head="own",
    )
    torch.manual_seed(3)
    transformer = Transformer(config)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return transformer.eval()
