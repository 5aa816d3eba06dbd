"""Folder of a questionnaire, with the key to its systems in a separate file."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cogview.errors import CogViewError
from cogview.files import read_json

QUESTIONS, KEY, PICTURES, ANSWERS = "questionnaire.json", "key.json", "pictures", "answers.jsonl"
MAX_SYSTEMS = 26  # pictures are labelled by letters
FORMAT = 1
_PICTURE_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """Caption with a picture of each system.

    Args:
        caption: the caption.
        pictures: random names of the pictures, sorted.
    """

    caption: str
    pictures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Questionnaire:
    """Questions for raters, without the systems of the pictures.

    Args:
        folder: its folder.
        identity: random identifier.
        secret: seed of the order of questions and pictures.
        title: heading of the questions.
        questions: all questions.
        questions_per_rater: number of random questions for each rater; None for all.
    """

    folder: Path
    identity: str
    secret: str
    title: str
    questions: tuple[Question, ...]
    questions_per_rater: int | None

    def numbers_for(self, rater: str) -> list[int]:
        """Return the numbers of a rater's questions, in the rater's order."""
        numbers = sorted(range(len(self.questions)), key=lambda number: self._draw(rater, str(number)))
        return numbers[: self.questions_per_rater]

    def order_for(self, rater: str, number: int) -> tuple[str, ...]:
        """Return the pictures of a question in the rater's order."""
        pictures = self.questions[number].pictures
        return tuple(sorted(pictures, key=lambda picture: self._draw(rater, picture)))

    def picture_path(self, picture: str) -> Path:
        """Return the file of a picture."""
        return self.folder / PICTURES / f"{picture}.png"

    def _draw(self, rater: str, thing: str) -> bytes:
        """Return a key for a random order; a hash, so that all versions of Python agree."""
        return hashlib.sha256(f"{self.secret} {rater} {thing}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Key:
    """Systems of the pictures.

    Args:
        systems: names of the systems, in the given order.
        system_of: system of each picture.
    """

    systems: tuple[str, ...]
    system_of: dict[str, str]


def read_questionnaire(folder: Path) -> Questionnaire:
    """Read the questionnaire in a folder.

    Raises:
        CogViewError: there is none, or it is damaged or incomplete.
    """
    if not (folder / QUESTIONS).is_file():
        raise CogViewError(
            f"{folder} holds no questionnaire: make one with --systems and --captions, or check the path"
        )
    content = read_json(folder / QUESTIONS, "questionnaire")
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, wanted {FORMAT}")
        questions = tuple(
            Question(caption=_text(each["caption"]), pictures=tuple(map(_picture_name, each["pictures"])))
            for each in content["questions"]
        )
        per_rater = content["questions_per_rater"]
        if per_rater is not None and (type(per_rater) is not int or per_rater < 1):
            raise ValueError(f"questions_per_rater is {per_rater!r}")
        pictures = [picture for question in questions for picture in question.pictures]
        if not questions or min(len(question.pictures) for question in questions) < 2:
            raise ValueError("there are no questions, or one without pictures to compare")
        if len(pictures) != len(set(pictures)):
            raise ValueError("a picture is in two places")
        questionnaire = Questionnaire(
            folder=folder,
            identity=_text(content["identity"]),
            secret=_text(content["secret"]),
            title=_text(content["title"]),
            questions=questions,
            questions_per_rater=per_rater,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CogViewError(f"{folder / QUESTIONS} is damaged ({error}): copy the folder again") from error
    absent = [picture for picture in pictures if not questionnaire.picture_path(picture).is_file()]
    if absent:
        raise CogViewError(
            f"{folder} lacks {len(absent):,} of its {len(pictures):,} pictures, the first "
            f"{questionnaire.picture_path(absent[0])}: copy the folder again"
        )
    return questionnaire


def read_key(questionnaire: Questionnaire) -> Key:
    """Read the key of a questionnaire.

    Raises:
        CogViewError: it is missing, or belongs to another questionnaire.
    """
    path = questionnaire.folder / KEY
    content = read_json(path, "questionnaire with its key")
    try:
        key = Key(systems=tuple(map(_text, content["systems"])), system_of=dict(content["system_of"]))
        for question in questionnaire.questions:
            systems = [key.system_of[picture] for picture in question.pictures]
            if sorted(systems) != sorted(key.systems):
                raise ValueError(f'"{question.caption}" has pictures of other systems')
    except (KeyError, TypeError, ValueError) as error:
        raise CogViewError(
            f"{path} is not the key of this questionnaire ({error}): copy the one that was made with it"
        ) from error
    return key


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _picture_name(value: object) -> str:
    """Return a picture's name if it is valid, so that it cannot point outside the folder."""
    if not (isinstance(value, str) and _PICTURE_NAME.fullmatch(value)):
        raise ValueError(f"{value!r} is no name of a picture")
    return value
