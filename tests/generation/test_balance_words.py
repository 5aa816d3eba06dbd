"""Balanced words in the pipeline: off by default, visible in the result, drawn as if they had been asked for."""

from pathlib import Path

import pytest
import torch

from cogview.generation.pipeline import Pipeline
from cogview.text.word_replacing import replace_words
from tiny import tiny_model

TEXT = "a doctor"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tiny_model(tmp_path_factory.mktemp("balance"), card="# Tiny\n"))


def test_words_are_not_replaced_unless_asked_for(pipe: Pipeline) -> None:
    (picture,) = pipe.generate(TEXT, num_candidates=1)
    assert (picture.text, picture.drawn_text) == (TEXT, None)
    codes = pipe.generate_codes(TEXT, num_candidates=1)[0, 0]
    assert torch.equal(picture.codes, codes)


@pytest.mark.filterwarnings("ignore:.* texts have more than")  # the tiny model spells these words in bytes
@pytest.mark.slow
def test_a_candidate_is_what_its_own_text_draws(pipe: Pipeline) -> None:
    pictures = pipe.generate(TEXT, num_candidates=3, seed=4, balance_words=True)
    assert [picture.seed for picture in pictures] == [4, 5, 6]
    assert {picture.text for picture in pictures} == {TEXT}
    for picture in pictures:
        assert picture.drawn_text == replace_words(TEXT, picture.seed) != TEXT
        alone = pipe.generate(picture.drawn_text, num_candidates=1, seed=picture.seed)[0]
        assert torch.equal(picture.codes, alone.codes)


def test_texts_without_people_are_drawn_as_they_are(pipe: Pipeline) -> None:
    plain = pipe.generate(["a cat", "a red cat"], num_candidates=2)
    balanced = pipe.generate(["a cat", "a red cat"], num_candidates=2, balance_words=True)
    for plain_row, balanced_row in zip(plain, balanced, strict=True):
        for one, other in zip(plain_row, balanced_row, strict=True):
            assert torch.equal(one.codes, other.codes)
            assert (one.text, other.drawn_text) == (other.text, None)


def test_a_balanced_text_can_be_too_long_too(pipe: Pipeline, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 2 texts .*12 pieces"):
        pipe.generate("two cats and one doctor on a blue ground", num_candidates=2, balance_words=True)
