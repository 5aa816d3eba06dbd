"""Answers outlive kills, full disks and second thoughts, and what is no answer is never taken for one."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.questionnaire.answers import AnswerFile, parse_answer, read_answers
from cogview.evaluation.questionnaire.folder import Questionnaire
from questionnaire_folder import questionnaire_in, record_of


@pytest.fixture
def asked(tmp_path: Path) -> Questionnaire:
    return questionnaire_in(tmp_path)


def line_of(record: dict) -> bytes:
    return json.dumps(record).encode() + b"\n"


def test_the_last_answer_counts_and_all_lines_stay(asked: Questionnaire) -> None:
    path = asked.folder / "answers.jsonl"
    answers = AnswerFile(path, asked)
    first, second = (parse_answer(record_of(asked, best=best), asked) for best in (0, 1))
    other = parse_answer(record_of(asked, rater="ben", question=2), asked)
    for answer in (first, other, second):
        answers.append(answer)
    assert answers.of("anna") == {0: second}
    assert answers.counts() == (2, 2)
    answers.close()
    assert len(path.read_text().splitlines()) == 3
    assert read_answers([path], asked) == [other, second]
    again = AnswerFile(path, asked)
    assert again.of("anna") == {0: second}
    again.close()


def test_every_cut_of_the_last_line_is_survived(asked: Questionnaire) -> None:
    path = asked.folder / "answers.jsonl"
    kept, torn = record_of(asked), record_of(asked, question=1)
    last = line_of(torn)
    for cut in (1, 20, len(last) - 2, len(last) - 1, len(last)):
        path.write_bytes(line_of(kept) + last[:cut])
        is_whole = cut >= len(last) - 1  # only the end of the line lacks
        found = read_answers([path], asked)
        assert [answer.question for answer in found] == ([0, 1] if is_whole else [0])
        answers = AnswerFile(path, asked)
        assert answers.counts() == (2 if is_whole else 1, 1)
        answers.append(parse_answer(record_of(asked, question=2), asked))
        answers.close()
        found = read_answers([path], asked)
        assert [answer.question for answer in found] == ([0, 1, 2] if is_whole else [0, 2])


def test_a_full_disk_leaves_the_file_as_it_was(asked: Questionnaire, monkeypatch: pytest.MonkeyPatch) -> None:
    path = asked.folder / "answers.jsonl"
    answers = AnswerFile(path, asked)
    answers.append(parse_answer(record_of(asked), asked))
    before = path.read_bytes()
    write = os.write

    def write_some(descriptor: int, data: bytes) -> int:
        if len(data) <= 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) - 40])

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(OSError, match="No space left"):
        answers.append(parse_answer(record_of(asked, question=1), asked))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert answers.counts() == (1, 1)
    answers.close()


def test_an_answer_is_synchronized_before_it_is_told_as_kept(
    asked: Questionnaire, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = asked.folder / "answers.jsonl"
    answers = AnswerFile(path, asked)
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_bytes()))
    answers.append(parse_answer(record_of(asked), asked))
    answers.close()
    assert synced == [path.read_bytes()]
    assert synced[0].endswith(b"\n")


def test_many_threads_write_whole_lines(asked: Questionnaire) -> None:
    path = asked.folder / "answers.jsonl"
    answers = AnswerFile(path, asked)

    def rate(rater: str) -> None:
        for question in range(3):
            answers.append(parse_answer(record_of(asked, rater, question), asked))

    threads = [threading.Thread(target=rate, args=(f"rater-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.close()
    assert len(read_answers([path], asked)) == 24
    assert len(path.read_bytes().splitlines()) == 24


def test_a_second_server_of_one_questionnaire_is_refused(asked: Questionnaire) -> None:
    pytest.importorskip("fcntl", reason="files cannot be locked on this system")
    path = asked.folder / "answers.jsonl"
    first = AnswerFile(path, asked)
    with pytest.raises(UsageError, match="served already"):
        AnswerFile(path, asked)
    first.close()
    AnswerFile(path, asked).close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": 3}, "question 3"),
        ({"question": True}, "question True"),
        ({"question": "0"}, "question '0'"),
        ({"rater": "a b"}, "a rater's name"),
        ({"rater": "a" * 65}, "a rater's name"),
        ({"rater": None}, "a rater's name"),
        ({"order": None}, "the order"),
        ({"order": ["x", 1, {}]}, "the order"),
        ({"scores": []}, "the scores"),
        ({"scores": {"x": {}}}, "the scores"),
        ({"best": "x"}, "the best"),
        ({"best": ["x"]}, "the best"),
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": "1"}, "seconds is '1'"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"seconds": 10**400}, "seconds is 1000"),
        ({"at": 1}, "at must be a text"),
    ],
)
@pytest.mark.slow
def test_what_is_no_answer_is_refused(asked: Questionnaire, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_answer(record_of(asked) | change, asked)


@pytest.mark.parametrize(
    "scores",
    [
        {"clarity": 0, "texture": 1, "relevance": 1, "overall": 1},
        {"clarity": 6, "texture": 1, "relevance": 1, "overall": 1},
        {"clarity": 1, "texture": 1, "relevance": 1, "overall": 11},
        {"clarity": True, "texture": 1, "relevance": 1, "overall": 1},
        {"clarity": 1.0, "texture": 1, "relevance": 1, "overall": 1},
        {"clarity": 1, "texture": 1, "relevance": 1},
        {"clarity": 1, "texture": 1, "relevance": 1, "overall": 1, "more": 1},
        None,
    ],
)
def test_scores_are_whole_numbers_of_their_scales(asked: Questionnaire, scores: object) -> None:
    record = record_of(asked)
    record["scores"][record["order"][0]] = scores
    with pytest.raises(ValueError, match=r"wanted 1 to|other scores than"):
        parse_answer(record, asked)


def test_a_broken_file_is_one_line(asked: Questionnaire, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    whole = line_of(record_of(asked))
    for content, said in (
        (b"{\n" + whole, "line 1 is no answer"),
        (whole + b"\xff\n" + whole, "line 2 is no answer"),
        (whole + line_of(record_of(asked) | {"question": 9}), "line 2 is no answer"),
        (b"[" * 100_000 + b"\n", "line 1 is no answer"),
    ):
        path.write_bytes(content)
        with pytest.raises(CogViewError, match=said) as error:
            read_answers([path], asked)
        assert "\n" not in str(error.value)
        with pytest.raises(CogViewError, match=said):
            AnswerFile(path, asked)
    with pytest.raises(CogViewError, match="cannot be read"):
        read_answers([tmp_path / "absent"], asked)
    with pytest.raises(CogViewError, match="cannot be written"):
        AnswerFile(tmp_path / "absent" / "answers.jsonl", asked)
