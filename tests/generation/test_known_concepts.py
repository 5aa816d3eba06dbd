"""What a model can be asked for is told from its words, and no more than these say."""

from dataclasses import replace

import pytest

from cogview.generation.known_concepts import (
    MAX_LISTED_WORDS,
    MIN_KNOWN_THINGS,
    NUMBERS,
    KnownConcepts,
    known_concepts,
    read_known_concepts,
)
from cogview.models.config import BUNDLED_FOLDER
from cogview.text.known_words import KnownWords, count_words
from cogview.text.tokenizer import TextTokenizer
from cogview.world.caption_words import BESIDE_WORDS, SIZE_WORDS
from cogview.world.objects import GROUNDS

TOKENIZER = TextTokenizer.from_file(BUNDLED_FOLDER / "text.model")
LARGER = [
    word for names in [*SIZE_WORDS.values(), BESIDE_WORDS] for words in names.values() for word in words
]


@pytest.fixture(scope="module")
def bundled() -> KnownWords:
    found = KnownWords.in_folder(BUNDLED_FOLDER)
    assert found is not None
    return found


def known(words: KnownWords, lists_all: bool = False, **adapters: KnownWords) -> KnownConcepts:
    return known_concepts(words, TOKENIZER, "usual", adapters, lists_all)


@pytest.mark.slow
def test_a_thing_is_known_by_all_of_its_usual_names_or_not_at_all(bundled: KnownWords) -> None:
    def things(*lost: str) -> set[str]:
        left = {word: count for word, count in bundled.counts.items() if word not in lost}
        return {thing.english[0] for thing in known(replace(bundled, counts=left)).things}

    all_things = things()
    assert all_things - things("cat") == all_things - things("猫") == all_things - things("cats") == {"cat"}
    assert all_things - things("palm") == {"palm tree"}
    assert things("kitten", "猫咪") == all_things


def test_names_that_are_not_known_are_left_out(bundled: KnownWords) -> None:
    left = {word: count for word, count in bundled.counts.items() if word not in ("kitten", "kittens")}
    cat = next(thing for thing in known(replace(bundled, counts=left)).things if thing.english[0] == "cat")
    assert cat.english == ("cat",)
    assert cat.chinese == ("猫",)


def test_things_have_colours_only_where_sizes_are_known(bundled: KnownWords) -> None:
    found = known(bundled)
    assert {colour.english[0] for colour in found.colours} == set(GROUNDS)
    assert {colour.of for colour in found.colours} == {("grounds",)}
    assert found.sizes == ()
    more = known(bundled | KnownWords.of_counts(count_words(LARGER, TOKENIZER)))
    assert [size.english for size in more.sizes] == [SIZE_WORDS[size]["en"] for size in ("small", "big")]
    assert {colour.english[0]: colour.of for colour in more.colours if len(colour.of) == 1} == {
        "gray": ("grounds",)
    }
    assert {place.english[0] for place in more.places} - {place.english[0] for place in found.places} == {
        "beside"
    }
    assert more.things == found.things


def test_numbers_are_those_that_are_known(bundled: KnownWords) -> None:
    assert [number.english for number in known(bundled).numbers] == [("two",), ("three",), ("four",)]
    more = bundled | KnownWords.of_counts(count_words(["five", "五", "six", "六"], TOKENIZER))
    assert [(each.english[0], each.chinese[0]) for each in known(more).numbers] == list(NUMBERS.values())


def test_a_model_of_another_world_has_words_the_most_frequent_first() -> None:
    words = KnownWords.of_counts(
        {f"word{number}": 1 + number for number in range(MAX_LISTED_WORDS + 10)} | {"Word7": 1}
    )
    found = known(words)
    assert len(found.words) == MAX_LISTED_WORDS
    assert found.words[0] == f"word{MAX_LISTED_WORDS + 9}"
    assert found == KnownConcepts(words=found.words, num_words=MAX_LISTED_WORDS + 10)
    assert len(known(words, lists_all=True).words) == MAX_LISTED_WORDS + 10


def test_a_few_things_of_the_table_do_not_make_its_world(bundled: KnownWords) -> None:
    first = known(bundled).things[: MIN_KNOWN_THINGS - 1]
    names = [name for thing in first for name in (*thing.english, f"{thing.english[0]}s", *thing.chinese)]
    found = known(KnownWords.of_counts(count_words(names, TOKENIZER)))
    assert found.things == ()
    assert "cat" in found.words


def test_words_of_a_model_of_the_world_are_listed_if_they_are_asked_for(bundled: KnownWords) -> None:
    assert known(bundled).words == ()
    found = known(bundled, lists_all=True)
    assert len(found.words) == found.num_words
    assert {word.casefold() for word in bundled.counts} == {word.casefold() for word in found.words}


def test_an_adapter_adds_the_words_that_the_model_does_not_know(bundled: KnownWords) -> None:
    adapter = KnownWords.of_counts({"woodcut": 3, "Cat": 9, "zebra": 7})
    assert known(bundled, engraver=adapter).adapters == {"engraver": ("zebra", "woodcut")}


def test_the_bundled_folder_tells_eighty_things_and_the_words_of_its_style() -> None:
    found = read_known_concepts(BUNDLED_FOLDER)
    assert len(found.things) == 80
    assert found.adapters.keys() == {"style-openmoji"}
    assert "openmoji" in found.adapters["style-openmoji"]
