"""The command itself: help at once, one line for what goes wrong, the right exit code."""

import errno
import io
import json
import os
import re
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated

import pytest
from command import MAIN, cogview

from cogview.cli import doctor, parsing
from cogview.cli import main as command
from cogview.cli.main import VERBS, main
from cogview.cli.parsing import call_with_flags
from cogview.cli.recipes import recipes_of
from cogview.errors import CogViewError, UsageError
from cogview.runs.drawing_options import DrawPicturesOptions
from cogview.runs.environment import REQUIRED_PACKAGES
from cogview.runs.flags import FLAT

RECIPES = {
    "data build": "cogview.recipes.default_data",
    "train captioning": "cogview.recipes.captioning",
    "train image-tokenizer": "cogview.recipes.image_tokenizer",
    "train super-resolution": "cogview.recipes.super_resolution",
    "train style": "cogview.recipes.style",
    "train text-to-image": "cogview.recipes.text_to_image",
}
HELP = [[], *(verb.split() for verb in VERBS), ["train"], ["data"], ["evaluate"]]
HELP += [[*verb.split(), "tiny"] for verb in RECIPES]


def raising(error: BaseException):
    def fail(_: list[str]) -> None:
        raise error

    return fail


def cpu_seconds_of_children() -> float:
    """Return the time that processes of ours have computed: it does not grow while the machine does other things."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("words", HELP, ids=" ".join)
@pytest.mark.slow
def test_help_is_there_for_everything_without_torch(words: list[str], tmp_path: Path) -> None:
    code = f"{MAIN.replace('sys.exit(main())', 'main()')}\nprint('torch' in sys.modules, file=sys.stderr)"
    # argparse and tyro leave by SystemExit, which must not keep the last line from being run.
    code = code.replace(
        "; main()", "\ntry:\n    main()\nexcept SystemExit as exit:\n    assert exit.code == 0"
    )
    start = cpu_seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    seconds = cpu_seconds_of_children() - start
    assert done.stderr == "False\n"
    assert done.stdout.startswith("usage: cogview " + " ".join(words))
    assert seconds < 1  # about 0.15


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "no verb"),
        (["data"], "needs one more word"),
        (["genrate"], "did you mean 'generate'"),
        (["trian"], "did you mean 'train'"),
        (["data", "chekc"], "did you mean 'data check'"),
        (["nonsense"], "no verb 'nonsense'"),
        (["--nonsense"], "no verb '--nonsense'"),
        (["data", "build"], "recipes are bundled"),
        (["data", "build", "tinyy"], "did you mean 'tiny'"),
        (["generate"], "no text"),
        (["generate", "a cat", "--size", "256", "--upscale", "4"], "--size=256 and --upscale=4"),
        (
            ["generate", "a cat", "--seed", "many"],
            "Error parsing --seed: wanted INT|{random}, got 'many'; For",
        ),
        (["generate", "a cat", "--keep", "x"], "Error parsing --keep: wanted INT, got 'x'; For"),
        (["generate", "a cat", "--top-p", "x"], "Error parsing --top-p: wanted FLOAT, got 'x'; For"),
        (["convert", "x", "y", "--kernel-sizes", "3"], "--kernel-sizes: wanted {INT INT}, got '3'; For"),
        (["generate", "a cat", "--temperature"], "Missing value for argument '--temperature'"),
        (["generate", "a cat", "--memory", "6"], "--memory must be at least 1,000,000 bytes, got 6;"),
        (["generate", "a cat", "--keep", "9"], "--keep must be between 1 and --num-candidates, 4, got 9"),
        (["generate", "a cat", "--keep", "1", "--seed=-1"], "--seed must not be negative, got -1"),
        (["generate", "a cat", "--top-p", "3"], "--top-p must lie over 0"),
        (["serve", "--max-waiting", "0"], "--max-waiting must be at least 1, got 0"),
        (["tokenize", "pictures"], "Missing from cogview tokenize: --out"),
        (["train", "text-to-image", "tiny", "--training.precision", "half"], "Expected one of ('auto',"),
    ],
)
def test_a_wrong_request_is_one_line_and_exits_with_2(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("cogview: error: ")
    assert error.count("\n") == 1
    assert named in error


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_value_is_short_in_any_encoding(
    encoding: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert main(["convert", "x", "y", "--kernel-sizes", "3"]) == 2
    assert capsys.readouterr().err == (
        "cogview: error: Error parsing --kernel-sizes: wanted {INT INT}, got '3'; "
        "For full helptext, see cogview convert --help\n"
    )
    assert main(["convert", "x", "y", "--sequence", "v4"]) == 2
    assert "'None'" not in capsys.readouterr().err


def test_a_wrong_flag_writes_nothing_and_shows_the_closest(tmp_path: Path) -> None:
    done = cogview("generate", "a cat", "--num-candidate", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("cogview: error: Unrecognized options: --num-candidate, 3;")
    assert "--num-candidates INT" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["generate", "a", "cat"],
            '2 texts are drawn, each of one word; for one text, use quotation marks: "a cat"',
        ),
        (
            ["rank", "a", "red", "cat", "x.png"],
            "the text is 'a'; for a longer one, use quotation marks: \"a red cat\"",
        ),
        (["upscale", "a", "cat", "x.png"], 'for a longer one, use quotation marks: "a cat"'),
        (
            ["generate", "a cat", "--seed", "1", "--seed=2"],
            "--seed is given 2 times: the last one counts",
        ),
        (["generate", "a cat", "dog"], ""),
        (["generate", "猫", "狗"], ""),
        (["rank", "a cat", "x.png", "out/cat"], ""),
    ],
)
def test_what_is_hardly_meant_is_told(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--model", str(tmp_path / "absent")]) == 1
    hint, _, error = capsys.readouterr().err.rpartition("cogview: error: ")
    assert "There is no model folder" in error
    assert hint.count("\n") == bool(told)
    assert told in hint


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("top_p must be 1, not top_k 2", "--top-p must be 1, not --top-k 2"),
        (
            "keep=3 needs ranking: to keep all, leave keep out",
            "--keep=3 needs ranking: to keep all, leave keep out",
        ),
        ("size_pixels=3 and upscale=2 (or force=True)", "--size=3 and --upscale=2 (or force=True)"),
        (
            "begun otherwise: seed was 0, now 1, top_p was 1, now 0.5",
            "begun otherwise: --seed was 0, now 1, --top-p was 1, now 0.5",
        ),
        ("training.num_steps is 0", "--training.num-steps is 0"),
        ("see out/top_p.json and 'top_p'", "see out/top_p.json and 'top_p'"),
        ("no picture to keep", "no picture to keep"),
    ],
)
def test_fields_are_named_as_flags(message: str, named: str) -> None:
    def verb(options: Annotated[DrawPicturesOptions, FLAT]) -> None:
        raise UsageError(message)

    # As if it were one of a recipe, whose flags have prefixes.
    with pytest.raises(UsageError) as caught:
        call_with_flags(verb, "cogview", "", ["a cat", "--top-k", "2"])
    assert str(caught.value) == named.replace("--training.num-steps", "training.num_steps")
    assert parsing._with_flags("num_steps is 0", parsing._fields_of(["--training.num-steps"])) == (
        "--training.num-steps is 0"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_is_done_without_a_flag(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(parsing, "_hint", lambda default: "UNSAID" if default == "None" else default)
    recipe = ["tiny"] if verb in RECIPES or verb in ("plan", "train vqgan", "train decoder") else []
    with pytest.raises(SystemExit):
        main([*verb.split(), *recipe, "--help"])
    for option in re.split(r"\n[│|] (?=--)", capsys.readouterr().out):
        said = " ".join(re.sub("[│|]", " ", option).split())
        assert "UNSAID" not in said or "default" in said or "None to use the base's" in said


def test_the_help_of_drawing_has_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = capsys.readouterr().out
    for title, flag in (
        ("sampling", "--top-p"),
        ("ranking", "--keep"),
        ("output", "--out"),
        ("model", "--dtype"),
    ):
        _, _, after = text.partition(f" {title} options ")
        group, _, _ = after.partition(" options ")
        assert f" {flag} " in group
    assert "None" not in text


def test_the_fields_of_a_recipe_can_be_overridden_and_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "image-tokenizer", "tiny", "--data", "absent", "--out", "run"]
    assert main([*words, "--training.num-steps", "0"]) == 2
    assert "--training.num-steps must be at least 1, got 0" in capsys.readouterr().err
    assert main([*words, "--size-pixels", "30"]) == 2
    assert "--size-pixels must be a multiple of 8" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "module"), RECIPES.items())
def test_every_recipe_says_what_it_claims_and_how_it_is_run(verb: str, module: str) -> None:
    recipes = recipes_of(module)
    assert {"bundled", "tiny"} <= recipes.keys()
    for name, recipe in recipes.items():
        text = recipe.__doc__ or ""
        assert f"Command: cogview {verb} {name} " in text
        assert "Claim:" in text
        assert "Cost:" in text
        recipe()


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (UsageError("no such thing"), 2, "cogview: error: no such thing"),
        (CogViewError("it is\nbroken"), 1, "cogview: error: it is broken"),
        (CogViewError("\x1b[31m猫\x07.png\x9b"), 1, r"cogview: error: \x1b[31m猫\x07.png\x9b"),
        (KeyboardInterrupt(), 130, "cogview: interrupted"),
        (KeyboardInterrupt("Stopped after step 3."), 130, "cogview: Stopped after step 3."),
        (
            MemoryError(),
            1,
            "cogview: error: out of memory (MemoryError); do less at once: fewer candidates, a smaller batch",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/1.png"),
            1,
            "cogview: error: No space left on device: out/1.png",
        ),
        (KeyError("x"), 1, "cogview: error: KeyError: 'x' (this is a bug; COGVIEW_DEBUG=1 shows where)"),
    ],
)
def test_what_goes_wrong_is_one_line(
    error: BaseException,
    exit_code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "_call_verb", raising(error))
    monkeypatch.delenv("COGVIEW_DEBUG", raising=False)
    assert main([]) == exit_code
    assert capsys.readouterr().err == line + "\n"


def test_the_traceback_is_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_call_verb", raising(KeyError("x")))
    monkeypatch.setenv("COGVIEW_DEBUG", "1")
    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_of_ours_are_one_line_and_those_of_libraries_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Path(command.__file__).parents[1] / "generation" / "pipeline.py"

    def warn(_: list[str]) -> None:
        warnings.warn_explicit("long\ntext\x1b[2J", UserWarning, str(ours), 1)
        warnings.warn_explicit("their business", DeprecationWarning, "/elsewhere/library.py", 1)

    monkeypatch.setattr(command, "_call_verb", warn)
    monkeypatch.delenv("COGVIEW_DEBUG", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([]) == 0
    assert capsys.readouterr().err == "cogview: warning: long text\\x1b[2J\n"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cogview 0.")


def test_the_doctor_reports_to_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("Python", "torch", "cpu:", "compiler:", "bundled model:", "extra 'data'"):
        assert word in text
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["devices"]["cpu"]["threads"] >= 1
    assert set(report["packages"]) == set(REQUIRED_PACKAGES)


def test_the_doctor_knows_every_package_and_extra(tmp_path: Path) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">=")[0] for requirement in project["dependencies"]}
    assert names == set(REQUIRED_PACKAGES)
    extras = {
        extra: tuple(requirement.split(">=")[0] for requirement in requirements)
        for extra, requirements in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert extras == {extra: packages for extra, (packages, _) in doctor.EXTRAS.items()}
