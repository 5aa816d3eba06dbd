"""The page of every command is walked: each works, in its order, on made-up icons and with two steps a training."""

import shlex
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogview.cli.main import VERBS, main
from cogview.evaluation.efficientnet import EfficientNetLite0
from cogview.world import builder
from cogview.world.config import TRAINING_STYLES
from cogview.world.icons import Icons, IconWords
from cogview.world.objects import scene_objects
from integration.test_documents import ROOT, lines_of, shortened
from scene_pictures import scene_art

PAGE = ROOT / "docs" / "every-command.md"
# Pages for people serve until they are ended, and answers come from people; both have tests of their own.
NOT_ON_THE_PAGE = {"evaluate answers", "serve"}


def verb_of(words: list[str]) -> str:
    """Return the verb of a command's words."""
    return next(verb for verb in (words[0], " ".join(words[:2])) if verb in VERBS)


def expanded(words: list[str]) -> Iterator[str]:
    """Yield the words as a shell hands them on: a pattern becomes the files that it matches."""
    for word in words:
        yield from sorted(map(str, Path().glob(word))) if "*" in word else [word]


def test_the_page_names_every_verb() -> None:
    verbs = {verb_of(words[1:]) for words in lines_of(PAGE) if words[0] == "cogview"}
    assert verbs == VERBS.keys() - NOT_ON_THE_PAGE
    assert all(f"cogview {verb}" in PAGE.read_text(encoding="utf-8") for verb in NOT_ON_THE_PAGE)


@pytest.mark.slow
def test_every_command_of_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # As large as the pictures: at its usual 224 pixels the network would take half of all the time.
    monkeypatch.setattr(EfficientNetLite0, "side_pixels", 32)
    codes = list(scene_objects())
    words_of_icons = {
        code: IconWords(labels={"zh": f"图{code}", "en": f"icon {code}"}, tags={"zh": (), "en": ()})
        for code in codes
    }
    icons = Icons(scene_art(codes, TRAINING_STYLES), words_of_icons)
    monkeypatch.setattr(builder, "load_icons", lambda *_: icons)
    for words in lines_of(PAGE):
        if words[0] == "cogview":
            warnings.simplefilter("ignore")  # so little is learnt from so few that some is told
            assert main(shortened([*expanded(words[1:])])) == 0, (
                f"{shlex.join(words)}: {capsys.readouterr().err}"
            )
        else:
            assert words[0] == "printf", words
            arguments = " ".join(word if word == ">" else shlex.quote(word) for word in words)
            subprocess.run(["bash", "-c", arguments], check=True)
    assert {"pictures", "tokens-32", "model", "captioner", "upscaler", "style", "released"} <= {
        path.name for path in Path("tour").iterdir()
    }
