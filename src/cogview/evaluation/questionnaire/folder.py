"""A questionnaire's folder: what raters see, apart from what they must not know."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cogview.errors import CogViewError
from cogview.files import read_json

QUESTIONS, KEY, PICTURES, ANSWERS = "questionnaire.json", "key.json", "pictures", "answers.jsonl"
MAX_SYSTEMS = 26  # pictures are called by the letters of the alphabet
FORMAT = 1
_PICTURE_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One caption with a picture of each system.

    Args:
        caption: what the pictures were drawn for.
        pictures: their names, which say nothing, in an order that says nothing.
    """

    caption: str
    pictures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Questionnaire:
    """What raters are asked. Which system drew a picture is not in here.

    Args:
        folder: where it lies.
        identity: tells it from others.
        secret: what the order of questions and pictures is drawn from.
        title: above the questions.
        questions: all of them.
        questions_per_rater: how many each rater is asked, drawn for each; None asks all.
    """

    folder: Path
    identity: str
    secret: str
    title: str
    questions: tuple[Question, ...]
    questions_per_rater: int | None

    def numbers_for(self, rater: str) -> list[int]:
        """Return which questions a rater is asked, in the rater's own order."""
        numbers = sorted(range(len(self.questions)), key=lambda number: self._draw(rater, str(number)))
        return numbers[: self.questions_per_rater]

    def order_for(self, rater: str, number: int) -> tuple[str, ...]:
        """Return the pictures of a question in the order in which a rater sees them."""
        pictures = self.questions[number].pictures
        return tuple(sorted(pictures, key=lambda picture: self._draw(rater, picture)))

    def picture_path(self, picture: str) -> Path:
        """Return the file of a picture."""
        return self.folder / PICTURES / f"{picture}.png"

    def _draw(self, rater: str, thing: str) -> bytes:
        """Return what to sort by for a random order: a hash, so that a later Python draws the same."""
        return hashlib.sha256(f"{self.secret} {rater} {thing}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Key:
    """Which system drew what.

    Args:
        systems: their names, in the order in which they were given.
        system_of: the system of each picture.
    """

    systems: tuple[str, ...]
    system_of: dict[str, str]


def read_questionnaire(folder: Path) -> Questionnaire:
    """Return the questionnaire in a folder.

    Raises:
        CogViewError: there is none, or not a whole one.
    """
    if not (folder / QUESTIONS).is_file():
        raise CogViewError(
            f"{folder} holds no questionnaire: make one with --systems and --captions, or check the path"
        )
    told = read_json(folder / QUESTIONS, "questionnaire")
    try:
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']!r}, wanted {FORMAT}")
        questions = tuple(
            Question(caption=_text(each["caption"]), pictures=tuple(map(_picture_name, each["pictures"])))
            for each in told["questions"]
        )
        per_rater = told["questions_per_rater"]
        if per_rater is not None and (type(per_rater) is not int or per_rater < 1):
            raise ValueError(f"questions_per_rater is {per_rater!r}")
        pictures = [picture for question in questions for picture in question.pictures]
        if not questions or min(len(question.pictures) for question in questions) < 2:
            raise ValueError("there are no questions, or one without pictures to compare")
        if len(pictures) != len(set(pictures)):
            raise ValueError("a picture is in two places")
        made = Questionnaire(
            folder=folder,
            identity=_text(told["identity"]),
            secret=_text(told["secret"]),
            title=_text(told["title"]),
            questions=questions,
            questions_per_rater=per_rater,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CogViewError(f"{folder / QUESTIONS} is damaged ({error}): copy the folder again") from error
    absent = [picture for picture in pictures if not made.picture_path(picture).is_file()]
    if absent:
        raise CogViewError(
            f"{folder} lacks {len(absent):,} of its {len(pictures):,} pictures, the first "
            f"{made.picture_path(absent[0])}: copy the folder again"
        )
    return made


def read_key(questionnaire: Questionnaire) -> Key:
    """Return which system drew each picture of a questionnaire.

    Raises:
        CogViewError: the file that tells is missing, or belongs to another questionnaire.
    """
    path = questionnaire.folder / KEY
    told = read_json(path, "questionnaire with its key")
    try:
        key = Key(systems=tuple(map(_text, told["systems"])), system_of=dict(told["system_of"]))
        for question in questionnaire.questions:
            drew = [key.system_of[picture] for picture in question.pictures]
            if sorted(drew) != sorted(key.systems):
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
    """Return a picture's name if it is one of ours, so that no file leads a path elsewhere."""
    if not (isinstance(value, str) and _PICTURE_NAME.fullmatch(value)):
        raise ValueError(f"{value!r} is no name of a picture")
    return value
