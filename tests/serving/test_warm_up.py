"""Engines warm up with models that read very short texts."""

from multiprocessing import Pipe
from pathlib import Path

import pytest

import cogview
from cogview.interop.rudalle import convert_rudalle
from cogview.serving.engine_process import EngineProcess
from cogview.serving.options import EngineOptions
from rudalle import CODES, HEADS, SPECIAL, checkpoint
from tiny import tiny_image_tokenizer, tiny_text_tokenizer


@pytest.mark.slow
def test_a_captioner_that_reads_three_pieces_is_warmed_up(tmp_path: Path) -> None:
    words = tiny_text_tokenizer(tmp_path)
    convert_rudalle(
        checkpoint(rudolph=True, special=SPECIAL, pieces=words.num_pieces),
        tmp_path / "ours",
        num_heads=HEADS,
        text_tokenizer=words,
        image_tokenizer=tiny_image_tokenizer(CODES),
    )
    engine = EngineProcess(
        cogview.load(tmp_path / "ours"), EngineOptions(model=str(tmp_path / "ours")), Pipe()[0]
    )
    engine.warm_up()
    assert engine._engine.num_passes > 0
