"""The page of a checkpoint's report: no text of a report becomes markup, wherever it stands."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from cogview.evaluation.report.sections import ReportImages, report_page
from cogview.evaluation.text_to_image import RADII, figure_name

EVIL = '<script>alert("1")</script>'


class Read(HTMLParser):
    """The tags and the texts of a page, those of attributes among them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.texts += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def evil(mark: str) -> str:
    return f"{EVIL} [{mark}]"


def report() -> dict[str, Any]:
    """Return a report with all sections, whose texts are all markup."""
    part = {
        name: evil(f"model {name}") for name in ("part", "shape", "fingerprint", "name", "task", "licence")
    }
    figures = {figure_name("frechet", "eye", radius): {"value": 1.5} for radius in RADII}
    request = {"num_captions": 1234, "candidates": 2, "temperature": 1.0, "top_p": 0.5, "guidance": 1.5}
    curve = [{"choice": evil("choice"), "num_candidates": 1, "CapLoss": 0.5}]
    counts = {"size_pixels": 16, "num_pictures": 1234, "num_codes": 32, "num_problems": 1}
    score = {"layer": 0, "largest_score": 1.0, "mean_absolute_score": 0.5, "text_share": 0.25}
    return {
        "title": evil("title"),
        "date": evil("date"),
        "command": evil("command"),
        "commit": evil("commit"),
        "model": {
            "name": evil("name"),
            "licence": evil("licence"),
            "draws": evil("draws"),
            "parts": [{**part, "parameters": 1234}],
            "adapters": [{**part, "parameters": None}],
            "trainings": [[evil("training head")], [f"`{evil('training')}`"]],
            "card": f"{evil('card')}\n\n| {evil('card head')} |\n|---|\n| {evil('card cell')} |\n",
            "config": {"key": evil("config")},
        },
        "samples": {
            **request,
            **{name: evil(f"samples {name}") for name in ("dtype", "device")},
            "prompts": [evil("prompt")],
            "seeds": [3],
            "top_k": None,
        },
        "text_to_image": {
            "eye": {
                "request": request,
                "figures": {**figures, evil("figure"): {"value": 0.5, "low": 0.25, "high": 0.75}},
                "curve": curve,
                "images": evil("images"),
                "split": evil("split"),
                "chosen_by": evil("chosen by"),
                "size_pixels": 16,
                "contrast": 1.0,
                "num_problems": 0,
            }
        },
        "composition": {"table": evil("composition")},
        "tokenizer": {**counts, "figures": {evil("tokenizer figure"): 0.5}},
        "attention": {"text": evil("attention"), "seed": 3, "heads": evil("heads"), "scores": [score]},
        "run": {
            **{name: evil(f"run {name}") for name in ("command", "seed", "device", "precision", "commit")},
            "versions": {evil("version"): 1},
            "num_steps": 1234,
            "last": {evil("metric"): None},
            "evaluation": {evil("evaluated split"): {evil("evaluated"): 1.5}},
            "config": {"key": evil("run config")},
        },
        "environment": {
            **{name: evil(f"environment {name}") for name in ("cogview", "python", "system")},
            "packages": {evil("package"): 1},
            "devices": {evil("device"): {evil("device fact"): 1}},
        },
        "lacking": [evil("lacking")],
    }


@pytest.mark.slow
def test_no_text_of_a_report_becomes_markup() -> None:
    picture = Image.new("RGB", (4, 4))
    told = report()
    read = Read(report_page(told, ReportImages(samples=[[picture]], reconstructions=picture)))
    assert "script" not in read.tags
    text = " ".join(read.texts)
    # In JSON, quotes are escaped a second time.
    shown = set(re.findall(rf"{re.escape(EVIL)} \[(.*?)\]", text.replace('\\"', '"')))
    assert shown == set(re.findall(r"</script> \[(.*?)\]", str(told)))
