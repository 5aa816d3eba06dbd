"""What the pages tell a reader to type works: every command is understood, the README's and the tutorial's are run."""

import json
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cogview
from cogview.cli import parsing, pictures
from cogview.cli.main import main
from cogview.models.config import BUNDLED_FOLDER
from plain_vqgan import LLAMAGEN, Shape, random_state

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINKED = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for name in ("docs", "bench", "findings") for path in (ROOT / name).rglob("*.md")),
    ]
)
_SHORT = ["--training.num-steps", "2", "--training.batch-size", "2", "--training.log-every-steps", "1"]


def lines_of(page: Path) -> Iterator[list[str]]:
    """Yield the words of each line of a page's shell blocks, comments left out."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def commands_of(page: Path) -> list[list[str]]:
    """Return the words after `cogview` of each of a page's commands."""
    return [words[1:] for words in lines_of(page) if words[0] in ("cogview", ".venv/bin/cogview")]


def shortened(words: list[str]) -> list[str]:
    """Return the words after `cogview`, with a training cut to two steps, one sample text and few layers."""
    if words[0] != "train" or words[1] == "text-tokenizer":
        return words
    more = [*_SHORT, "--sample-texts", "a red apple"] if words[1] in ("text-to-image", "style") else _SHORT
    is_new = words[1] == "text-to-image" and "--start-from" not in words
    return [*words, *more, *(["--transformer.num-layers", "2"] if is_new else [])]


def links_of(page: Path) -> list[str]:
    """Return what a page's links point to, code left out."""
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.slow
def test_every_link_of_the_pages_resolves(page: Path) -> None:
    for link in links_of(page):
        name, _, anchor = link.partition("#")
        if not name.startswith(("https:", "http:", "mailto:")):
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(
        r"\b(?:src|tests|bench|scripts|docs|launch)/[\w/.-]+\.(?:py|sh|md|yaml|sbatch|toml)\b",
        page.read_text(),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_index_of_decisions_lists_every_page_once() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    assert sorted(links_of(folder / "README.md")) == pages


def test_the_page_of_drawing_has_every_flag() -> None:
    page = (ROOT / "docs" / "generate.md").read_text()
    flags = set(parsing._flags_of(pictures.generate).values()) - {"--texts"}
    assert {"--keep", "--keep-pixels", "--json"} <= flags
    assert flags <= set(re.findall(r"--[a-z-]+", page))


def test_the_pages_have_commands() -> None:
    assert len(commands_of(ROOT / "README.md")) >= 2
    assert sum(len(commands_of(page)) for page in PAGES) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.slow
def test_every_command_of_the_pages_is_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = parsing._parse

    def only_parse(
        function: Callable[..., None], program: str, description: str, arguments: Sequence[str]
    ) -> Callable[[], None]:
        parse(function, program, description, arguments)
        return lambda: None

    monkeypatch.setattr(parsing, "_parse", only_parse)
    for words in commands_of(page):
        assert main(words) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"


@pytest.mark.slow
def test_the_bundled_model_draws_what_the_readme_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = commands_of(ROOT / "README.md")[0]
    assert words[0] == "generate"
    assert main([*words, "--num-candidates", "1"]) == 0
    (sheet,) = tmp_path.glob("out/001/contact-sheet.png")
    assert str(sheet.relative_to(tmp_path)) in capsys.readouterr().out
    (path,) = tmp_path.glob("out/001/*seed0.png")
    with Image.open(path) as picture:
        assert picture.size == (256, 256)
        lowest, highest = picture.convert("L").getextrema()
        assert highest - lowest > 50  # not a blank


def test_the_bundled_model_fits_the_repository() -> None:
    assert sum(path.stat().st_size for path in BUNDLED_FOLDER.rglob("*") if path.is_file()) <= 60e6


def test_the_bundled_adapters_are_small_and_say_their_licence() -> None:
    licences = {}
    for folder in (BUNDLED_FOLDER / "adapters").iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6, folder.name
        licences[folder.name] = json.loads((folder / "config.json").read_text(encoding="utf-8"))["licence"]
        assert f"\nlicense: {licences[folder.name]}\n" in (folder / "README.md").read_text(encoding="utf-8")
    share_alike = licences.pop("style-openmoji")
    assert share_alike == "CC-BY-SA-4.0"
    assert licences == {"caption": "apache-2.0", "super-resolution": "apache-2.0"}


@pytest.mark.filterwarnings("ignore:the model has never seen. openmoji")  # without its adapter
@pytest.mark.slow
def test_the_bundled_style_has_black_lines() -> None:
    pipe = cogview.load(device="cpu")

    def share_of_black(**options: Any) -> float:
        texts = [
            "A bell of openmoji style",
            "A hamburger of openmoji style",
        ]  # it has seen neither in the style
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without the adapter, "openmoji" is a word that was never seen
            rows = pipe.generate(texts, 4, temperature=0.5, **options)
        dark = np.array([candidate.image for row in rows for candidate in row]).max(axis=-1) < 60
        bright_grounds = ~dark[:, 0, 0]
        assert bright_grounds.sum() >= 4
        return float(dark[bright_grounds].mean())

    assert share_of_black(adapter="style-openmoji") > 2 * share_of_black()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pictures are too few")
def test_the_tutorial_can_be_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its commands in their order, on four pictures in the place of the package, and with two steps a training."""
    monkeypatch.chdir(tmp_path)
    unpacked = tmp_path / "stamps" / "usr" / "share" / "stamps"
    unpacked.mkdir(parents=True)
    for number, (english, chinese) in enumerate(
        [("red", "紅"), ("green", "綠"), ("blue", "藍"), ("white", "白")]
    ):
        Image.new("RGBA", (150, 140 + number), english).save(unpacked / f"{english}.png")
        (unpacked / f"{english}.txt").write_text(
            f"A {english} apple.\nzh_TW.utf8=一個{chinese}蘋果。\n", "utf-8"
        )
    torch.save({"model": random_state(LLAMAGEN, Shape(factors=(1, 1, 1, 1, 1)))}, tmp_path / "vq_ds16_c2i.pt")
    done = []
    for words in lines_of(ROOT / "docs" / "your-own-pictures.md"):
        done.append(words[0])
        if words[0] == "python":
            script = [sys.executable, str(ROOT / words[1]), *words[2:]]
            subprocess.run(script, check=True, capture_output=True)
        elif words[0] == "cogview":
            more = ["--num-candidates", "1"] if words[1] == "generate" else []
            assert main([*shortened(words[1:]), *more]) == 0, shlex.join(words)
        else:
            assert words[0] in ("apt-get", "source"), words
    assert {"python", "cogview"} <= set(done)
    (picture,) = tmp_path.glob("out/001/*seed0.png")
    with Image.open(picture) as opened:
        assert opened.size == (256, 256)
