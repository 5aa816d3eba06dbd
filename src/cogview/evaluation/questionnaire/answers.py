"""File of answers, one JSON line each, written to disk before they are acknowledged."""

import json
import os
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.questionnaire.folder import Questionnaire
from cogview.files import try_lock

SCALES = {"clarity": 5, "texture": 5, "relevance": 5, "overall": 10}
"""Scales of the scores, from 1 to this best score.

Paper: appendix E.
"""

_RATER = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of one rater to one question.

    Args:
        rater: name of the rater, usually random.
        question: number of the question.
        order: pictures in the order shown.
        scores: scores of each picture, by `SCALES`.
        best: the preferred picture.
        seconds: time spent on the question, if known.
        at: time of the answer, UTC in ISO 8601.
    """

    rater: str
    question: int
    order: tuple[str, ...]
    scores: dict[str, dict[str, int]]
    best: str
    seconds: float | None
    at: str


def checked_rater(value: object) -> str:
    """Return a rater's name if it is valid.

    Raises:
        ValueError: it is not.
    """
    if not (isinstance(value, str) and _RATER.fullmatch(value)):
        raise ValueError("a rater's name has 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return value


def parse_answer(record: object, questionnaire: Questionnaire) -> Answer:
    """Parse an answer.

    Raises:
        ValueError: it is no answer to a question of this questionnaire.
    """
    if not isinstance(record, dict):
        raise ValueError("not an object")
    number = record.get("question")
    if type(number) is not int or not 0 <= number < len(questionnaire.questions):
        raise ValueError(f"there is no question {number!r}")
    pictures = sorted(questionnaire.questions[number].pictures)
    order, scores, best = record.get("order"), record.get("scores"), record.get("best")
    if not isinstance(order, list) or not _are(order, pictures):
        raise ValueError(f"the order is not of the pictures of question {number}")
    if not isinstance(scores, dict) or not _are(list(scores), pictures):
        raise ValueError(f"the scores are not of the pictures of question {number}")
    if best not in pictures:
        raise ValueError(f"the best is none of the pictures of question {number}")
    checked: dict[str, dict[str, int]] = {}
    for picture in pictures:
        given = scores[picture]
        if not isinstance(given, dict) or not _are(list(given), sorted(SCALES)):
            raise ValueError(f"a picture has other scores than {', '.join(SCALES)}")
        for scale, largest in SCALES.items():
            if type(given[scale]) is not int or not 1 <= given[scale] <= largest:
                raise ValueError(f"{scale} is {given[scale]!r}, wanted 1 to {largest}")
        checked[picture] = {scale: given[scale] for scale in SCALES}
    seconds, at = record.get("seconds"), record.get("at")
    if seconds is not None and (type(seconds) not in (int, float) or not 0 <= seconds < 1e9):
        raise ValueError(f"seconds is {seconds!r}")
    if not isinstance(at, str):
        raise ValueError("at must be a text, the time of the answer")
    return Answer(
        rater=checked_rater(record.get("rater")),
        question=number,
        order=tuple(order),
        scores=checked,
        best=best,
        seconds=None if seconds is None else float(seconds),
        at=at,
    )


def read_answers(paths: Sequence[Path], questionnaire: Questionnaire) -> list[Answer]:
    """Return the answers of files, the last of each rater to each question.

    An incomplete last line is ignored: it was never acknowledged.

    Raises:
        CogViewError: a file cannot be read, or a line is no answer to this questionnaire.
    """
    answers: dict[tuple[str, int], Answer] = {}
    for path in paths:
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise CogViewError(f"{path} cannot be read ({error.strerror}): check the path") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                answer = parse_answer(json.loads(line), questionnaire)
            except (ValueError, RecursionError) as error:
                if number == len(lines):
                    break
                raise CogViewError(
                    f"{path} line {number} is no answer to this questionnaire ({error}): correct or remove the line"
                ) from error
            answers.pop((answer.rater, answer.question), None)
            answers[answer.rater, answer.question] = answer
    return list(answers.values())


class AnswerFile:
    """Append-only file of answers, thread-safe and locked against other processes.

    Args:
        path: the file; created if missing.
        questionnaire: the questionnaire.

    Raises:
        UsageError: another process has it open.
        CogViewError: it cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path, questionnaire: Questionnaire) -> None:
        self._lock = threading.Lock()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            _sync_folder(path.parent)
        except OSError as error:
            raise CogViewError(
                f"{path} cannot be written ({error.strerror}): copy the folder elsewhere"
            ) from error
        try:
            # Windows locks would prevent reading too.
            if os.name == "posix" and not try_lock(self._descriptor):
                raise UsageError(f"{path.parent} is being served already: stop that server, or use it")
            self._answers = {
                (each.rater, each.question): each for each in read_answers([path], questionnaire)
            }
            self._mend_last_line(path, questionnaire)
        except BaseException:
            self.close()
            raise

    def of(self, rater: str) -> dict[int, Answer]:
        """Return a rater's answers by the numbers of their questions."""
        with self._lock:
            return {question: answer for (who, question), answer in self._answers.items() if who == rater}

    def counts(self) -> tuple[int, int]:
        """Return the numbers of answers and of raters."""
        with self._lock:
            return len(self._answers), len({rater for rater, _ in self._answers})

    def append(self, answer: Answer) -> None:
        """Append an answer and flush it to disk.

        Raises:
            OSError: it could not be written; the file is unchanged.
        """
        line = (json.dumps(asdict(answer), ensure_ascii=False) + "\n").encode()
        with self._lock:
            size = os.fstat(self._descriptor).st_size
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
                os.fsync(self._descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, size)
                raise
            self._answers[answer.rater, answer.question] = answer

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _mend_last_line(self, path: Path, questionnaire: Questionnaire) -> None:
        """Add a missing newline to the last line, or remove a line that was written only in part."""
        data = path.read_bytes()
        last = data[data.rfind(b"\n") + 1 :]
        if not last:
            return
        try:
            parse_answer(json.loads(last), questionnaire)
        except (ValueError, RecursionError):
            os.ftruncate(self._descriptor, len(data) - len(last))
        else:
            os.write(self._descriptor, b"\n")
        os.fsync(self._descriptor)


def _are(given: list[Any], wanted: list[str]) -> bool:
    """Return whether a list holds exactly these strings, in any order."""
    return all(isinstance(each, str) for each in given) and sorted(given) == wanted


def _sync_folder(folder: Path) -> None:
    """Flush a new file's name to disk, where the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
