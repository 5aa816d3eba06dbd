"""Nothing is unknown to a tokenizer of ours, training is repeatable, and foreign files are refused."""

import hashlib
from pathlib import Path

import pytest

from cogview.errors import CogViewError, UsageError
from cogview.text.config import TextTokenizerConfig
from cogview.text.tokenizer import TextTokenizer, is_blank
from cogview.text.training import train_text_tokenizer

WORDS = {"蓝色", "背景", "上", "的", "一", "只", "猫", "狗", "苹果", "红色"}
TEXTS = [
    f"{ground}背景上的一只{animal}"
    for ground in ("蓝色", "红色")
    for animal in ("猫", "狗", "苹果")
    for _ in range(4)
] + [
    f"a {animal} on a {ground} background" for ground in ("blue", "red") for animal in ("cat", "dog", "apple")
] * 4
CONFIG = TextTokenizerConfig(num_pieces=400)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.model"
    train_text_tokenizer(TEXTS, path, CONFIG, WORDS)
    return path


@pytest.fixture(scope="module")
def tokenizer(model_file: Path) -> TextTokenizer:
    return TextTokenizer.from_file(model_file)


@pytest.mark.parametrize(
    "text",
    [
        "蓝色背景上的一只猫",
        "a dog on a red background",
        "😀👩‍🚀🇨🇳 emoji",
        "龘靐𠮷 rare characters",
        "مرحبا بالعالم",
        "สวัสดี привет ελληνικά",
        "1234567890 !?#%&*()[]{}<>",
        "naïve café Ω ≠ ∞",
        "‖ and other marks ‖",
        "",
    ],
)
def test_every_text_comes_back_though_the_corpus_never_had_its_characters(
    tokenizer: TextTokenizer, text: str
) -> None:
    pieces = tokenizer.encode(text)
    assert tokenizer.decode(pieces) == text
    assert all(0 < piece < tokenizer.num_pieces for piece in pieces), "piece 0 is the unknown"


@pytest.mark.parametrize(
    ("written", "read"),
    [("ＡＢＣ，１２", "ABC,12"), ("  a \t b\n", "a b"), ("①", "1"), ("half \ud800 pair", "half ? pair")],
)
def test_texts_are_normalised(tokenizer: TextTokenizer, written: str, read: str) -> None:
    assert tokenizer.decode(tokenizer.encode(written)) == read


def test_known_words_become_single_pieces_and_phrases_do_not(tokenizer: TextTokenizer) -> None:
    assert tokenizer.words("蓝色背景上的一只猫") == ["▁", "蓝色", "背景", "上", "的", "一", "只", "猫"]
    assert tokenizer.words("a cat on a blue background") == [
        "▁a",
        "▁cat",
        "▁on",
        "▁a",
        "▁blue",
        "▁background",
    ]


def test_words_are_the_strings_of_the_pieces(tokenizer: TextTokenizer) -> None:
    text = "红色的 apple"
    assert len(tokenizer.words(text)) == len(tokenizer.encode(text))
    assert "".join(tokenizer.words(text)) == "▁红色的▁apple"


def test_the_vocabulary_has_at_most_the_pieces_asked_for(tokenizer: TextTokenizer) -> None:
    assert 257 < tokenizer.num_pieces <= CONFIG.num_pieces


def test_training_again_gives_the_same_file(model_file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.model"
    train_text_tokenizer(iter(TEXTS), again, CONFIG, sorted(WORDS))
    assert again.read_bytes() == model_file.read_bytes()


def test_the_fingerprint_is_of_the_file_and_survives_saving(model_file: Path, tmp_path: Path) -> None:
    tokenizer = TextTokenizer.from_file(model_file)
    tokenizer.save(tmp_path / "copy.model")
    assert (tmp_path / "copy.model").read_bytes() == model_file.read_bytes()
    assert tokenizer.fingerprint == hashlib.sha256(model_file.read_bytes()).hexdigest()[:16]
    assert TextTokenizer.from_file(tmp_path / "copy.model").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x89PNG\r\n\x1a\n" + bytes(200)])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.model"
    path.write_bytes(content)
    with pytest.raises(CogViewError, match=r"other\.model is not a SentencePiece model"):
        TextTokenizer.from_file(path)


def test_a_cut_off_model_is_refused(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.model"
    path.write_bytes(model_file.read_bytes()[:-100])
    with pytest.raises(CogViewError, match="is not a SentencePiece model"):
        TextTokenizer.from_file(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.model", tmp_path):
        with pytest.raises(CogViewError, match="cannot be read"):
            TextTokenizer.from_file(path)


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_training_on_nothing_is_refused_and_writes_nothing(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(CogViewError, match="no texts"):
        train_text_tokenizer(texts, tmp_path / "text.model", CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_fewer_pieces_than_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="num_pieces=260"):
        train_text_tokenizer(TEXTS, tmp_path / "text.model", TextTokenizerConfig(num_pieces=260))


def test_half_a_surrogate_pair_is_read_as_a_question_mark_wherever_texts_are_read(tmp_path: Path) -> None:
    half = "a red cat \ud83d"
    for name, text in (("half", half), ("mark", "a red cat ?")):
        train_text_tokenizer([*TEXTS, text], tmp_path / name, CONFIG, {text})
    assert (tmp_path / "half").read_bytes() == (tmp_path / "mark").read_bytes()
    tokenizer = TextTokenizer.from_file(tmp_path / "half")
    assert tokenizer.encode(half) == tokenizer.encode("a red cat ?")
    assert tokenizer.words(half) == tokenizer.words("a red cat ?")


@pytest.mark.parametrize(
    "text",
    ["", " ", "\u200b", "\u200e\u200f", "\u3000\t", "\ufeff", "\u2028", "\ud83d", "a", "a\u200b", "。"],
)
def test_a_text_is_blank_where_nothing_is_left_to_be_read(tokenizer: TextTokenizer, text: str) -> None:
    assert is_blank(text) == (not tokenizer.encode(text))


def test_words_that_the_texts_lack_take_no_room(tmp_path: Path) -> None:
    train_text_tokenizer(["一只猫"] * 4, tmp_path / "a.model", CONFIG, {"猫"})
    train_text_tokenizer(["一只猫"] * 4, tmp_path / "b.model", CONFIG, {"猫", "蝴蝶", "butterfly", ""})
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()


def test_the_longest_known_word_wins(tmp_path: Path) -> None:
    texts = ["一只猫头鹰", "一只猫", "两只猫头鹰", "两只猫"]
    train_text_tokenizer(texts, tmp_path / "text.model", CONFIG, {"猫头鹰", "猫", "只", "两"})
    assert TextTokenizer.from_file(tmp_path / "text.model").words("两只猫头鹰") == ["▁", "两", "只", "猫头鹰"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_pieces": 257},
        {"character_coverage": 0.5},
        {"character_coverage": 1.1},
        {"max_piece_characters": 0},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TextTokenizerConfig(**wrong)  # type: ignore[arg-type]
