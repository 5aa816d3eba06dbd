"""A small questionnaire to test with: three systems, whose pictures are of one colour each."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cogview.evaluation.questionnaire.answers import SCALES, AnswerFile
from cogview.evaluation.questionnaire.build import build_questionnaire
from cogview.evaluation.questionnaire.folder import Questionnaire, read_questionnaire
from cogview.evaluation.questionnaire.server import QuestionnaireServer
from cogview.evaluation.questionnaire.systems import Caption, System

COLOURS = {"baseline": (200, 30, 30), "ours": (30, 160, 60), "truth": (40, 60, 200)}
CAPTIONS = ("a red apple above a dog", "蓝色背景上的一只猫", "two umbrellas")


def systems_in(home: Path) -> list[System]:
    """Write the pictures of three systems, of which one draws larger ones."""
    systems = []
    for name, colour in COLOURS.items():
        folder = home / name
        folder.mkdir()
        for number in range(len(CAPTIONS)):
            side = 32 if name == "ours" else 16
            Image.new("RGB", (side, side), (*colour[:2], colour[2] + number)).save(folder / f"{number}.png")
        systems.append(System(name=name, folder=folder))
    return systems


def captions() -> list[Caption]:
    """Return the captions, named like the pictures."""
    return [Caption(text=text, name=str(number)) for number, text in enumerate(CAPTIONS)]


def questionnaire_in(home: Path, questions_per_rater: int | None = None) -> Questionnaire:
    """Make the questionnaire."""
    out = home / "questionnaire"
    build_questionnaire(out, systems_in(home), captions(), questions_per_rater=questions_per_rater)
    return read_questionnaire(out)


def record_of(questionnaire: Questionnaire, rater: str = "anna", question: int = 0, best: int = 0) -> dict:
    """Return a random answer as its line in the file, as plain data; `best` is a place in the rater's order."""
    order = questionnaire.order_for(rater, question)
    draw = random.Random(f"{rater} {question}")
    return {
        "rater": rater,
        "question": question,
        "order": list(order),
        "scores": {
            picture: {scale: draw.randint(1, most) for scale, most in SCALES.items()} for picture in order
        },
        "best": order[best],
        "seconds": 1.5,
        "at": "2026-01-02T03:04:05+00:00",
    }


@contextmanager
def serving(asked: Questionnaire) -> Iterator[QuestionnaireServer]:
    """Yield a server of a questionnaire that answers while the block runs."""
    answers = AnswerFile(asked.folder / "answers.jsonl", asked)
    with QuestionnaireServer(asked, answers, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    answers.close()
