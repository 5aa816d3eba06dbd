"""`cogview evaluate model`: a page that says what report.json says and needs nothing else; bad input is one line."""

import base64
import io
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cogview.cli.main import main
from cogview.evaluation.backbone import Features
from cogview.generation.loading import load
from cogview.generation.pipeline import Pipeline
from cogview.models.folder import save_pretrained
from cogview.models.pretrained import TaskModel
from cogview.runs import checkpoint_figures, evaluate_text_to_image
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from scene_pictures import scene_folder
from tiny import CAPTIONS, tiny_model

pytestmark = pytest.mark.slow

EVIL = '<script>alert("1")</script>'
CARD = f"""---
license: cc0-1.0
---
# Tiny & {EVIL}

## Training

| part | recipe |
|---|---|
| transformer | `cogview train {EVIL}` |
"""


class Eye:
    """Sees mean colours, and takes them for classes."""

    name = "eye"

    def __call__(self, images: torch.Tensor) -> Features:
        pooled = images.mean((2, 3))
        return Features(pooled=pooled, maps=(), logits=5 * pooled)


class Page(HTMLParser):
    """What a page has: its tags, the rows of each section's tables, its texts, and the drawings in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.text = ""
        self._section = ""
        self._is_in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.rows[self._section] = []
        elif tag == "tr":
            self.rows[self._section].append([])
        elif tag in ("td", "th"):
            self.rows[self._section][-1].append("")
            self._is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._is_in_cell = self._is_in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._is_in_cell:
            self.rows[self._section][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.tags if each == tag]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make run/, a training run with its model, mute/, the same model without captioner and card, and pictures/."""
    home = tmp_path_factory.mktemp("home")
    save_pretrained(tiny_model(home), home / "mute")
    model = tiny_model(home, card=CARD)
    adapted = AdaptedTransformer(model.transformer, AdapterConfig(rank=2), 1)
    template = {"grid_rows": 4, "grid_columns": 4, "max_text_pieces": 12, "positions": "from_zero"}
    model.adapters["captions"] = TaskModel(task="captioning", transformer=adapted, template=template)
    (home / "run").mkdir()
    save_pretrained(model, home / "run" / "model")
    config = {"command": f"cogview train {EVIL}", "seed": 3, "git_commit": None}
    (home / "run" / "config.json").write_text(json.dumps(config))
    (home / "run" / "evaluation.json").write_text('{"held-out": {"image_loss_nats": 2.125}}')
    lines = [{"step": 10, "loss": 3.5, "loss_scale": 2.0}, {"step": 20, "loss": 1.25, "gradient_norm": None}]
    (home / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "pictures").mkdir()
    draw = np.random.default_rng(0)
    captions = []
    for number in range(24):
        pixels = draw.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16)).save(home / "pictures" / f"{number}.png")
        captions.append({"file_name": f"{number}.png", "text": CAPTIONS[number % 4], "split": "held-out"})
    (home / "pictures" / "3.png").write_bytes(b"no picture")
    (home / "pictures" / "metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in captions))
    (home / "prompts.txt").write_text(f"a red cat {EVIL}\n\n一只猫和一个苹果\n", encoding="utf-8")
    return home


@pytest.fixture(autouse=True)
def small_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a network of no weights see."""
    monkeypatch.setattr(evaluate_text_to_image, "open_backbone", lambda *_: (Eye(), {"name": "eye"}))
    monkeypatch.setattr(checkpoint_figures, "find_weights", lambda: None)


def call(home: Path, out: Path, *more: object) -> int:
    words = ["--out", out, "--prompts", home / "prompts.txt", "--seeds", 5, 2, "--device", "cpu", *more]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return main(["evaluate", "model", *map(str, words)])


def made(out: Path) -> tuple[dict[str, Any], Page]:
    return json.loads((out / "report.json").read_text()), Page((out / "report.html").read_text("utf-8"))


def refuse_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn_again(*_: Any, **__: Any) -> None:
        raise AssertionError("it is drawn already")

    monkeypatch.setattr(Pipeline, "generate_codes", drawn_again)


def test_a_model_alone_has_facts_samples_and_a_list_of_what_is_lacking(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/cogview", "evaluate", "model", "--out", "a b"])
    assert call(home, tmp_path / "out", "--model", home / "mute") == 0
    said = capsys.readouterr()
    assert "drawing samples" in said.err
    report, page = made(tmp_path / "out")
    assert list(page.rows) == ["model", "samples", "environment", "lacking"]
    assert [each["href"] for each in page.all("a")] == [f"#{name}" for name in page.rows]
    parts = {each["part"]: each for each in report["model"]["parts"]}
    pipe = load(home / "mute", "cpu")
    num_parameters = pipe.transformer.config.num_parameters
    assert parts["transformer"]["parameters"] == num_parameters
    assert ["transformer", "2 layers, width 32, 2 heads", f"{num_parameters:,}"] in [
        row[:3] for row in page.rows["model"]
    ]
    assert parts["image tokenizer"]["fingerprint"] == pipe.image_tokenizer.fingerprint
    assert report["samples"]["seeds"] == [5, 2]
    images = page.all("img")
    assert [each["alt"] for each in images] == [
        f"{text}, seed {seed}" for text in report["samples"]["prompts"] for seed in (5, 2)
    ]
    data = base64.b64decode((images[2]["src"] or "").removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as shown:
        pixels = np.asarray(shown).astype(int)
    drawn = [np.asarray(pipe.generate("一只猫和一个苹果", 1, seed=seed)[0].image) for seed in (2, 5, 0, 1)]
    assert pixels.shape == drawn[1].shape
    assert np.argmin([np.abs(pixels - each).mean() for each in drawn]) == 1
    assert report["command"] == "cogview evaluate model --out 'a b'"
    assert report["command"] in page.text
    assert report["environment"]["packages"]["torch"] in page.text
    assert len(report["lacking"]) == 6
    for line in report["lacking"]:
        assert line in page.text
        assert line in said.out
    refuse_drawing(monkeypatch)
    assert call(home, tmp_path / "out", "--model", home / "mute") == 0
    again, _ = made(tmp_path / "out")
    assert again["samples"] == report["samples"]


def test_a_run_with_pictures_has_all_figures(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", home / "run", "--attention"]
    assert call(home, tmp_path / "out", *words, "--images", home / "pictures", "--candidates", 2) == 0
    report, page = made(tmp_path / "out")
    assert list(page.rows) == [
        *("model", "samples", "drawn", "tokenizer", "attention", "losses", "environment", "lacking")
    ]
    result = report["text_to_image"]["eye"]
    assert (result["request"]["num_captions"], result["num_problems"]) == (24, 1)
    for name, figure in result["figures"].items():
        assert [name, f"{figure['value']:,.4g}"] in [row[:2] for row in page.rows["drawn"]]
    for line in result["curve"]:
        cells = [line["choice"], str(line["num_candidates"]), f"{line['CapLoss']:.4g}"]
        assert cells in [[*row[:2], row[-1]] for row in page.rows["drawn"]]
    values = {row[0]: row[1] for row in page.rows["tokenizer"]}
    assert report["tokenizer"]["num_pictures"] == 23
    assert report["tokenizer"]["figures"].keys() >= {"psnr_db", "ssim", "codes_used"}
    for name, value in report["tokenizer"]["figures"].items():
        assert values[name] == f"{value:,.4g}"
    scores = report["attention"]["scores"]
    assert ["layer 1", *(f"{each['largest_score']:.2f}" for each in scores if each["layer"] == 1)] in (
        page.rows["attention"]
    )
    assert report["run"]["last"] == {"step": 20, "loss": 1.25, "gradient_norm": None}
    for row in (["loss", "1.25"], ["gradient_norm", "not finite"], ["image_loss_nats", "2.125"]):
        assert row in page.rows["losses"]
    drawings = [each["aria-label"] for each in page.all("svg")]
    assert drawings == [
        "The distance against the radius of the blur",
        "Quality against the number of candidates",
        "The losses against the step",
    ]
    assert report["model"]["adapters"][0]["name"] == "captions"
    assert len(report["lacking"]) == 1  # the composition
    # Once the pictures are measured, the same comes of what is kept.
    refuse_drawing(monkeypatch)
    monkeypatch.setattr(checkpoint_figures, "evaluate_with_grid", None)
    (tmp_path / "out" / "composition").mkdir()
    request = {"request": {"transformer": report["samples"]["transformer"]}, "share": 0.5}
    (tmp_path / "out" / "composition" / "composition.json").write_text(json.dumps(request))
    (tmp_path / "out" / "composition" / "composition.md").write_text(
        "Valid.\n\n| | all |\n|---|---|\n| x | 50.0% |\n"
    )
    assert call(home, tmp_path / "out", "--model", home / "run" / "model") == 0
    again, page = made(tmp_path / "out")
    for part in ("text_to_image", "tokenizer", "run", "samples"):
        assert again[part] == report[part]
    assert again["composition"]["figures"]["share"] == 0.5
    assert page.rows["composition"] == [["", "all"], ["x", "50.0%"]]
    assert again["attention"] is None


def test_scenes_add_the_composition_score(home: Path, tmp_path: Path) -> None:
    scene_folder(tmp_path / "scenes", 16, 16)
    words = ["--model", home / "mute", "--scenes", tmp_path / "scenes", "--num-captions", 12]
    words += ["--top-p", 0.9]
    assert call(home, tmp_path / "out", *words) == 0
    report, page = made(tmp_path / "out")
    found = json.loads((tmp_path / "out" / "composition" / "composition.json").read_text())
    assert report["composition"]["figures"] == found
    assert (found["request"]["num_captions"], found["request"]["top_p"]) == (12, 0.9)
    assert page.rows["composition"]
    assert not any("--scenes" in line for line in report["lacking"])


def test_no_text_becomes_markup_and_nothing_comes_from_elsewhere(home: Path, tmp_path: Path) -> None:
    assert call(home, tmp_path / "out", "--model", home / "run") == 0
    _, page = made(tmp_path / "out")
    assert not page.all("script")
    assert page.text.count(EVIL) >= 5  # title, heading, card, its table, prompt, command
    assert ["transformer", f"cogview train {EVIL}"] in page.rows["model"]
    assert "cc0-1.0" in page.text
    names = [each["id"] for _, each in page.tags if "id" in each]
    assert len(names) == len(set(names))
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert "//" not in (value or "").partition("base64,")[0], (tag, name)
            if name in ("src", "href"):
                assert (value or "").startswith(("data:image/webp;base64,", "#"))
    (style,) = re.findall(
        r"<style>(.*?)</style>", (tmp_path / "out" / "report.html").read_text("utf-8"), re.S
    )
    assert not any(
        colour in str(page.tags) for colour in ("#000000", "#ffffff")
    )  # unseen on a dark or a light page
    assert "url(" not in style
    assert "@import" not in style


def test_what_cannot_be_reported_is_one_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    out = tmp_path / "out"
    for exit_code, said, place, more in (
        (1, "absent", out, ("--model", tmp_path / "absent")),
        (1, "absent is no folder", out, ("--images", tmp_path / "absent")),
        (2, "mine.txt", tmp_path / "other", ()),
        (2, "is a file", tmp_path / "empty.txt", ()),
        (2, "has no texts", out, ("--prompts", tmp_path / "empty.txt")),
        (1, "is not UTF-8", out, ("--prompts", tmp_path / "latin.txt")),
        (1, "No such file", out, ("--prompts", tmp_path / "absent.txt")),
        (2, "--seeds must be different", out, ("--seeds", 1, 1)),
        (2, "--seeds must be different", out, ("--seeds", -1)),
        (2, "folder with --images or --scenes", out, ("--num-captions", 5)),
        (2, "--candidates is about real pictures", out, ("--candidates", 5)),
        (2, "--split is about real pictures", out, ("--split", "train", "--scenes", tmp_path)),
        (2, "needs something to choose", out, ("--images", home / "pictures", "--candidates", 2)),
    ):
        model = () if "--model" in more else ("--model", home / "mute")
        assert call(home, place, *model, *more) == exit_code, said
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("cogview: error: ")
        assert said in error
    # What cannot be drawn with is not kept as what was asked for.
    assert call(home, out, "--model", home / "mute", "--top-p", 5) == 2
    assert "--top-p must lie over 0 and be at most 1" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert call(home, out, "--model", home / "mute") == 2
    assert "a report is made by one process" in capsys.readouterr().err
    assert not out.exists()


def test_samples_and_figures_of_something_else_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(home, tmp_path / "out", "--model", home / "mute") == 0
    assert call(home, tmp_path / "out", "--model", home / "mute", "--top-p", 0.5) == 2
    assert "--top-p was 0.8, now 0.5" in capsys.readouterr().err
    (tmp_path / "out" / "text-to-image").mkdir()
    path = tmp_path / "out" / "text-to-image" / "figures-eye.json"
    for exit_code, said, content in (
        (2, "is about another model", '{"request": {"transformer": "of another"}}'),
        (1, "has no figures", "[]"),
        (1, "cannot be read as JSON", "{"),
    ):
        path.write_text(content)
        assert call(home, tmp_path / "out", "--model", home / "mute") == exit_code
        assert said in capsys.readouterr().err
