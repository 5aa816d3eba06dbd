"""`cogview evaluate questionnaire`: asks people which pictures are better."""

import sys
from pathlib import Path

from cogview.cli.report import print_result
from cogview.errors import UsageError
from cogview.runs.progress_bar import progress_bar


def run(
    folder: Path,
    /,
    *,
    systems: tuple[str, ...] = (),
    captions: Path | None = None,
    title: str = "Which picture is best?",
    questions_per_rater: int | None = None,
    size_pixels: int | None = None,
    serve: bool = False,
    host: str = "127.0.0.1",
    port: int = 8300,
    json: bool = False,
) -> None:
    """Make a blind questionnaire about pictures of several systems, serve it to raters, or both.

    Each question shows one caption with a picture of each system in random order; raters score all of them and pick
    the best. With --systems and --captions the folder is made; with --serve it is served until Ctrl-C, and answers are
    appended to answers.jsonl in it. `cogview evaluate answers` tells what they say.

    Args:
        folder: the questionnaire's.
        systems: two or more folders of pictures, each as NAME=FOLDER. A picture has its caption's name, or is listed in
            metadata.jsonl, or was drawn by `cogview generate --num-candidates 1`.
        captions: a file of captions: metadata.jsonl, or text with a caption a line, before which may stand the name of
            its pictures and a tab.
        title: what stands above the questions.
        questions_per_rater: ask each rater so many, drawn for each; all by default.
        size_pixels: scale pictures to squares of this side; by default that of the largest, since another size would
            tell a system from the rest.
        serve: serve the questionnaire.
        host: the address to serve at; 127.0.0.1 is seen by this machine alone, 0.0.0.0 by its network.
        port: to serve at; 0 takes a free one.
        json: print the result as JSON.
    """
    if bool(systems) != (captions is not None):
        raise UsageError(
            "a questionnaire is made of --systems and --captions: give both, or neither to serve one"
        )
    if not systems and not serve:
        raise UsageError("there is nothing to do: give --systems and --captions to make it, or --serve")
    if captions is not None:
        from cogview.evaluation.questionnaire.build import build_questionnaire
        from cogview.evaluation.questionnaire.systems import parse_systems, read_captions

        asked = read_captions(captions)
        with progress_bar("copying", "pictures") as move:
            left_out = build_questionnaire(
                folder,
                parse_systems(systems),
                asked,
                title=title,
                questions_per_rater=questions_per_rater,
                size_pixels=size_pixels,
                progress=move,
            )
        result = {"folder": folder, "num_questions": len(asked), "pictures_left_out": left_out}
        lines = [
            f"{folder}: {len(asked):,} questions about {len(left_out)} systems",
            *(
                f"{name}: {number:,} pictures without a caption left out"
                for name, number in left_out.items()
                if number
            ),
            *([] if serve else [f"serve it: cogview evaluate questionnaire {folder} --serve"]),
        ]
        print_result(result, lines, json)
        sys.stdout.flush()
    if serve:
        _serve(folder, host, port)


def _serve(folder: Path, host: str, port: int) -> None:
    """Serve a questionnaire until Ctrl-C, or until the process is asked to end."""
    from cogview.evaluation.questionnaire.answers import AnswerFile
    from cogview.evaluation.questionnaire.folder import ANSWERS, read_questionnaire
    from cogview.evaluation.questionnaire.server import QuestionnaireServer

    questionnaire = read_questionnaire(folder)
    answers = AnswerFile(folder / ANSWERS, questionnaire)
    try:
        with QuestionnaireServer(questionnaire, answers, host, port) as server:
            print(f"open {server.url} in a browser; Ctrl-C ends it", file=sys.stderr, flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                num_answers, num_raters = answers.counts()
                told = f"{num_answers:,} answers of {num_raters:,} raters are in {folder / ANSWERS}"
                print(f"\n{told}; see them: cogview evaluate answers {folder}", file=sys.stderr)
    finally:
        answers.close()
