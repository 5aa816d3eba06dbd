"""Texts to draw: those of a file are the same as words of the command line, and what is no text is one line."""

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.cli.main import main
from cogview.data.records import lines_of as cut_as_captions
from cogview.errors import CogViewError, UsageError
from cogview.runs.prompts import Prompts
from cogview.text.tokenizer import TextTokenizer
from tiny import tiny_pipeline_folder, tiny_text_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return tiny_text_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return tmp_path / "texts.txt"


def is_text(text: str) -> bool:
    return bool(text.strip())


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\ufeff")).filter(is_text), min_size=1
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([0, *range(8_185, 8_195), 2**16 - 1]),
)
@settings(max_examples=30, deadline=None)
def test_a_file_gives_its_lines_and_nothing_else_ends_one(
    texts: list[str], end: str, num_before: int
) -> None:
    if num_before:
        texts = ["x" * num_before, *texts]  # so that lines end where files are read in parts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.txt"
        path.write_bytes("".join(text + end for text in texts).encode())
        wanted = [text.strip() for text in texts]
        with Prompts((), str(path)) as prompts, Prompts(wanted) as words:
            assert list(prompts) == list(words) == wanted
            assert len(prompts) == len(texts)
            assert prompts.fingerprint == words.fingerprint
            assert list(prompts) == wanted  # once more


def test_texts_are_told_apart_by_their_borders() -> None:
    prints = set()
    for texts in (["a", "b"], ["b", "a"], ["a b"], ["a\nb"], ["a", "b", "b"]):
        with Prompts(texts) as prompts:
            prints.add(prompts.fingerprint)
    assert len(prints) == 5


def test_two_readers_do_not_disturb_each_other() -> None:
    with Prompts(["a", "b", "c"]) as prompts:
        pairs: Iterator[tuple[str, str]] = zip(prompts, prompts, strict=True)
        assert list(pairs) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_empty_lines_are_told_and_a_mark_of_utf_8_is_no_text(
    lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines.write_bytes(b"\xef\xbb\xbfa cat\n\n  \na dog" + b"\n" * 9)
    with Prompts((), str(lines)) as prompts:
        assert list(prompts) == ["a cat", "a dog"]
    assert capsys.readouterr().err == (
        f"cogview: passing over 10 empty lines of {lines}: 2, 3, 5, 6, 7, ...\n"
    )


def test_lines_are_cut_as_captions_are(lines: Path) -> None:
    lines.write_bytes(b"a cat\ra dog\r\ntwo dogs\na\vb\r")
    with Prompts((), str(lines)) as prompts:
        assert list(prompts) == [text for text in cut_as_captions(lines.read_bytes().decode()) if text]


def test_the_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a cat\n一只猫".encode())))
    with Prompts((), "-") as prompts:
        assert list(prompts) == ["a cat", "一只猫"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no text"),
        (b"\n \n", "no text"),
        (b"a cat\ncaf\xe9\n", "line 2 of .* UTF-8"),
        ("a cat".encode("utf-16"), "line 1 of .* UTF-8"),
        ("a cat".encode("utf-16-le"), "line 1 of .* NUL"),
        (b"x" * 1_100_000, "line 1 of .* 1,000,000 bytes"),
    ],
)
def test_what_is_no_text_is_one_line(lines: Path, content: bytes, problem: str) -> None:
    lines.write_bytes(content)
    with pytest.raises(CogViewError, match=problem) as caught:
        Prompts((), str(lines))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_given_beside_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CogViewError, match="absent cannot be read"):
        Prompts((), str(tmp_path / "absent"))
    with pytest.raises(CogViewError, match="cannot be read"):
        Prompts((), str(tmp_path))
    with pytest.raises(UsageError, match="not both"):
        Prompts(("a cat",), str(tmp_path / "absent"))


def test_what_the_model_does_not_read_is_refused_and_what_is_too_long_told_once(
    lines: Path, tokenizer: TextTokenizer
) -> None:
    lines.write_bytes("a cat\n\n\u200b\n".encode())
    with Prompts((), str(lines)) as prompts, pytest.raises(UsageError, match=r"line 3 of "):
        prompts.check(tokenizer, 12)
    with (
        Prompts(["a cat", "x" * 10_000, "y" * 20]) as prompts,
        pytest.warns(UserWarning, match="2 of 3 texts .*12 pieces"),
    ):
        prompts.check(tokenizer, 12)


def test_a_fault_in_the_last_text_is_found_before_the_first_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_pipeline_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    texts = [*("a cat" for _ in range(40)), "\u200b"]
    assert main(["generate", *texts, "--model", str(model), "--device", "cpu"]) == 2
    assert "text 41 of 41" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
