"""What a model has learnt of words: which it knows, and in which spelling it reads them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_text_tokenizer

from cogview.errors import CogViewError
from cogview.text.known_words import WORDS_FILE, KnownWords, count_words, word_runs
from cogview.text.tokenizer import TextTokenizer

CAPTIONS = (
    "A red cat above a dog",
    "a cat, a dog and a Christmas tree",
    "a T-shirt on red",
    "一只猫和一个苹果",
    "蓝色背景上的一只狗",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return tiny_text_tokenizer(tmp_path_factory.mktemp("text"), CAPTIONS * 3)


@pytest.fixture(scope="module")
def known(tokenizer: TextTokenizer) -> KnownWords:
    return KnownWords.of_counts(count_words(CAPTIONS, tokenizer))


def test_words_are_letters_and_digits_and_pieces_where_nothing_is_spaced(tokenizer: TextTokenizer) -> None:
    text = "Two ＣＡＴＳ, 12 café’s — [3D]"
    assert word_runs(text, tokenizer) == [["Two"], ["CATS"], ["12"], ["café"], ["s"], ["3D"]]
    assert word_runs("cafe\u0301", tokenizer) == [["café"]]
    (run,) = word_runs("一只猫", tokenizer)
    assert "".join(run) == "一只猫"
    assert word_runs("🐱\ufe0f, 龘", tokenizer) == [["🐱"], ["龘"]]
    assert word_runs(" ,.。！_-\u0301", tokenizer) == []


def test_what_was_learnt_is_known_and_the_rest_is_named_once(
    tokenizer: TextTokenizer, known: KnownWords
) -> None:
    for text in CAPTIONS:
        assert known.unknown(text, tokenizer, "as_written") == []
    text = "a zebra and a cat, Zebra кот 龘靐 🦓 5 🦓"
    assert known.unknown(text, tokenizer, "as_written") == ["zebra", "Zebra", "кот", "5", "龘靐", "🦓"]
    assert known.unknown("A CAT", tokenizer, "as_written") == ["CAT"]
    assert known.unknown("A CAT", tokenizer, "usual") == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("A Red CAT", "a red cat"),
        ("christmas TREE", "Christmas tree"),
        ("t-SHIRT, ＲＥＤ", "T-shirt, red"),
        ("a ｃａｔ", "a ｃａｔ"),  # the tokenizer reads full-width letters by itself
        ("A RED ZEBRA。蓝色", "a red zebra。蓝色"),
        ("A cat", "A cat"),  # so captions begin: it is known as it is
        ("A ZEBRA", "A ZEBRA"),  # no word is known in another spelling
        ("蓝色背景，一只猫", "蓝色背景，一只猫"),
    ],
)
def test_capitals_are_read_as_they_were_learnt(known: KnownWords, written: str, read: str) -> None:
    assert known.in_usual_case(written) == read
    assert known.in_usual_case(read) == read


@given(data=st.data(), caption=st.sampled_from(CAPTIONS))
def test_a_caption_in_any_case_is_read_as_known_words(
    tokenizer: TextTokenizer, known: KnownWords, data: st.DataObject, caption: str
) -> None:
    flags = data.draw(st.lists(st.booleans(), min_size=len(caption), max_size=len(caption)))
    cased = "".join(char.upper() if flag else char.lower() for char, flag in zip(caption, flags, strict=True))
    read = known.in_usual_case(cased)
    assert read.casefold() == caption.casefold()
    assert known.unknown(read, tokenizer, "as_written") == known.unknown(cased, tokenizer, "usual") == []
    assert known.in_usual_case(caption) == caption


@given(st.text())
def test_any_text_is_read(tokenizer: TextTokenizer, known: KnownWords, text: str) -> None:
    read = known.in_usual_case(text)
    assert known.in_usual_case(read) == read
    assert set(known.unknown(text, tokenizer, "usual")) <= set(known.unknown(text, tokenizer, "as_written"))


def test_the_usual_spelling_is_the_commonest_and_small_letters_win_a_draw() -> None:
    known = KnownWords.of_counts({"Cat": 2, "cat": 2, "Tree": 3, "tree": 2})
    assert known.in_usual_case("CAT TREE") == "cat Tree"


def test_the_rarest_words_are_left_out_and_both_sets_can_be_joined() -> None:
    known = KnownWords.of_counts({"a": 3, "b": 1, "c": 2}, most=2)
    assert (dict(known.counts), known.num_left_out) == ({"a": 3, "c": 2}, 1)
    both = known | KnownWords.of_counts({"a": 1, "d": 1})
    assert (dict(both.counts), both.num_left_out) == ({"a": 4, "c": 2, "d": 1}, 1)


def test_words_are_kept_in_a_folder(tmp_path: Path, known: KnownWords) -> None:
    assert KnownWords.in_folder(tmp_path) is None
    known.save(tmp_path)
    read = KnownWords.in_folder(tmp_path)
    assert read is not None
    assert (read.counts, read.num_left_out) == (known.counts, known.num_left_out)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"words": ["a"]},
        {"words": {"a": "1"}},
        {"words": {"a": True}},
        {"words": {"a": 0}},
        {"num_left_out": -1},
        {"num_left_out": None},
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    tmp_path: Path, known: KnownWords, change: dict[str, object]
) -> None:
    known.save(tmp_path)
    content = json.loads((tmp_path / WORDS_FILE).read_text(encoding="utf-8"))
    (tmp_path / WORDS_FILE).write_text(json.dumps(content | change))
    with pytest.raises(CogViewError, match=r"words\.json") as refused:
        KnownWords.in_folder(tmp_path)
    assert "\n" not in str(refused.value)
    for text in ("", "[]", "[" * 100_000, "1" * 5_000):
        (tmp_path / WORDS_FILE).write_text(text)
        with pytest.raises(CogViewError):
            KnownWords.in_folder(tmp_path)
