"""Captions after the picture: of a batch, the pieces and the end are learnt, and nothing else."""

import numpy as np

from cogview.sequence.right_text import RightTextTemplate
from cogview.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(num_image_codes=10, num_text_pieces=20, num_special_pieces=2, num_pads=3)
PIECE, PAD = VOCABULARY.text_pieces.start, VOCABULARY.separator("PAD")
TEMPLATE = RightTextTemplate(
    vocabulary=VOCABULARY,
    grid_rows=2,
    grid_columns=2,
    max_text_pieces=3,
    num_left_tokens=3,
    left=(2,),
    opening=(2, 21),
    end_piece=3,
    first_code_position=4,
    first_right_position=8,
)


def test_pieces_and_the_end_are_learnt() -> None:
    codes = np.array([7, 8, 9, 6])
    batch = TEMPLATE.batch([([5, 6], codes), ([], codes), ([5, 6, 7, 4], codes)])
    pads = VOCABULARY.pads
    prefix = [PIECE + 2, pads[1], pads[2], 7, 8, 9, 6, PIECE + 2, PIECE + 21]
    assert TEMPLATE.num_prefix_tokens == len(prefix)
    assert batch.tokens.tolist() == [
        [*prefix, PIECE + 5, PIECE + 6, PAD],
        [*prefix, PAD, PAD, PAD],
        [*prefix, PIECE + 5, PIECE + 6, PIECE + 7],
    ]
    learnt = [targets[mask].tolist() for targets, mask in zip(batch.targets, batch.text_mask, strict=True)]
    end = TEMPLATE.end_token
    assert learnt == [
        [PIECE + 5, PIECE + 6, end],
        [end],
        [PIECE + 5, PIECE + 6, PIECE + 7, end],
    ]
    assert batch.positions[2].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert not batch.image_mask.any()
    assert batch.num_clipped == 1
