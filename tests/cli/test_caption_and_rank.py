"""Captions end to end: an adapter learns a few pictures by heart, names them, ranks them and ranks what is drawn."""

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import tiny_pipeline_folder

import cogview
from cogview.cli.main import main
from cogview.generation.captioner import Captioner
from cogview.generation.contact_sheet import contact_sheet, save_sheet
from cogview.generation.picture_task import PictureTask, Prompt
from cogview.generation.pictures import codes_of
from cogview.generation.pipeline import Pipeline
from cogview.generation.ranker import best_of
from cogview.image.pixels import image_to_array
from cogview.runs import caption_and_rank, drawing_run

pytestmark = pytest.mark.slow

TEXTS = {
    "red": "a red cat",
    "green": "一只猫和一个苹果",
    "blue": "two dogs on a blue ground",
    "yellow": "a dog",
}

STEPS = ("--training.num-steps", 140, "--training.learning-rate", 0.02, "--training.sample-every-steps", 140)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make tiny-model/, pictures/ and tokens/ once, and run/, a captioner trained on them."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_pipeline_folder(home)
    (home / "pictures").mkdir()
    lines = []
    for color, text in TEXTS.items():
        Image.new("RGB", (16, 16), color).save(home / "pictures" / f"{color}.png")
        lines.append({"file_name": f"{color}.png", "text": text})
    (home / "pictures" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["tokenize", home / "pictures", "--image-tokenizer", model, "--text-tokenizer", model]
    words += ["--size-pixels", 16, "--out", home / "tokens", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    assert main(training(home, home / "run")) == 0
    return home


def training(home: Path, out: Path, *more: object) -> list[str]:
    words = ["train", "captioning", "tiny", "--data", home / "tokens", "--held-out", home / "tokens"]
    words += ["--base", home / "tiny-model", "--out", out, *STEPS]
    return [str(word) for word in [*words, *more]]


@pytest.fixture(scope="module")
def pipe(home: Path) -> Pipeline:
    pipe = cogview.load(home / "tiny-model", "cpu")
    pipe.add_adapter(home / "run", "caption")
    return pipe


def paths(home: Path) -> list[Path]:
    return [home / "pictures" / f"{color}.png" for color in TEXTS]


def said(capsys: pytest.CaptureFixture[str], home: Path, *words: object, code: int = 0) -> dict:
    capsys.readouterr()
    model = ("--model", home / "tiny-model", "--captioner", home / "run", "--device", "cpu", "--json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # of pictures that cannot be read
        assert main([str(word) for word in (*words, *model)]) == code
    printed = capsys.readouterr()
    if code:
        assert printed.err.splitlines()[-1].startswith("cogview: error: ")
    return json.loads(printed.out) if printed.out else {"error": printed.err}


def test_the_run_leaves_an_adapter_and_what_was_measured(home: Path) -> None:
    config = json.loads((home / "run" / "model" / "config.json").read_text())
    assert (config["task"], config["template"]["positions"]) == ("captioning", "from_zero")
    assert len(config["adapter"]["token_rows"]) == 3
    figures = json.loads((home / "run" / "evaluation.json").read_text())["held_out"]
    assert figures["own_caption_is_first"] == 1
    assert 0 < figures["caption_loss_nats"] < 0.3
    with Image.open(home / "run" / "samples" / "step-00000140.png") as sheet:
        assert sheet.height > 4 * 16


def test_a_captioner_names_the_pictures_that_it_learnt(
    home: Path, pipe: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = pipe.caption(paths(home), num_captions=2)
    assert [each[0].text for each in captions] == list(TEXTS.values())
    assert all(best.score > second.score for best, second in captions)
    assert [each[0].text for each in pipe.caption(paths(home), num_beams=1)] == list(TEXTS.values())
    result = said(capsys, home, "caption", *paths(home), "--num-captions", 2)
    assert result["pictures"] == [
        {
            "path": str(path),
            "captions": [
                {
                    "text": each.text,
                    "caption_loss": pytest.approx(each.caption_loss, abs=1e-4),
                    "score": pytest.approx(each.score, abs=1e-4),
                    "seed": None,
                }
                for each in written
            ],
        }
        for path, written in zip(paths(home), captions, strict=True)
    ]


def test_a_caption_is_written_in_the_language_that_is_asked_for(
    home: Path, pipe: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ({}, {"num_beams": 1}, {"temperature": 2.0, "num_captions": 4}):
        for language, letters in (("zh", re.compile("[a-zA-Z]")), ("en", re.compile("[^\\x00-\\x7f]"))):
            written = pipe.caption(paths(home), language=language, **options)
            texts = [each.text for row in written for each in row]
            assert not any(letters.search(text) for text in texts)
            if "temperature" in options:
                continue
            for row, text in zip(written, TEXTS.values(), strict=True):
                if (language == "zh") == (not text.isascii()):  # what it says of itself
                    assert row[0].text == text
    captioner, allowed = pipe.model.caption_model(), pipe.text_tokenizer.writes("en")
    codes = codes_of(pipe.model, paths(home)[1], captioner.template)
    for forced in captioner.beam_search(codes, 3, allowed=allowed)[0]:  # losses stay those of the model
        (loss,) = captioner.losses([(np.array(forced.pieces), codes[0])])
        assert loss == pytest.approx(forced.caption_loss, abs=1e-4)
    result = said(capsys, home, "caption", paths(home)[1], "--language", "en")
    assert result["pictures"][0]["captions"][0]["text"].isascii()
    with pytest.raises(cogview.UsageError, match=r"language.*en, zh.*'fr'"):
        pipe.caption(paths(home), language="fr")


def test_contact_sheets_are_passed_over(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "renamed.png"
    save_sheet(contact_sheet([[Image.new("RGB", (16, 16))]], ["a dog"]), sheet)
    good = paths(home)[0]
    for verb in (["caption"], ["rank", "a dog"]):
        result = said(capsys, home, *verb, sheet, good)
        assert [each["path"] for each in result["pictures"]] == [str(good)]
        assert result["contact_sheets"] == [str(sheet)]
        assert "is a contact sheet: give the paths" in said(capsys, home, *verb, sheet, code=2)["error"]


def test_captions_are_printed_as_they_are_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caption_and_rank, "_PICTURES_AT_ONCE", 1)
    really, done = Captioner.caption, []

    def stopped(self: Captioner, *arguments: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return really(self, *arguments)

    monkeypatch.setattr(Captioner, "caption", stopped)
    words = ["caption", *paths(home), "--model", home / "tiny-model", "--captioner", home / "run"]
    assert main([str(word) for word in words]) == 130
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("/")] == [
        str(p) for p in paths(home)[:2]
    ]
    assert "a red cat" in printed


def test_drawn_captions_come_with_seeds_that_draw_them_again(home: Path, pipe: Pipeline) -> None:
    path = paths(home)[0]
    drawn = pipe.caption(path, num_captions=6, temperature=8.0, seed=3)[0]
    assert [each.seed for each in drawn] == list(range(3, 9))
    assert len({each.text for each in drawn}) > 1
    assert pipe.caption(path, temperature=8.0, seed=5)[0] == [drawn[2]]
    assert all(each.text.encode() for each in drawn)  # whatever bytes were drawn, it is text


def test_the_loss_of_a_caption_is_that_of_its_text(home: Path, pipe: Pipeline) -> None:
    (written,) = pipe.caption(paths(home)[2])[0]
    (loss,) = pipe.caption_loss(paths(home)[2], written.text)
    assert loss == pytest.approx(written.caption_loss, abs=1e-4)


def test_losses_are_of_pairs_or_of_one_beside_all(home: Path, pipe: Pipeline) -> None:
    texts = list(TEXTS.values())
    whole = np.array([pipe.caption_loss(path, texts) for path in paths(home)])
    assert (whole.argmin(axis=1) == range(4)).all()
    np.testing.assert_allclose(pipe.caption_loss(paths(home), texts), whole.diagonal(), atol=1e-4)
    np.testing.assert_allclose(pipe.caption_loss(paths(home), texts[1]), whole[:, 1], atol=1e-4)
    with Image.open(paths(home)[0]) as image:
        wide = Image.new("RGB", (48, 16))
        wide.paste(image, (16, 0))
        pixels = torch.from_numpy(image_to_array(image))[None]
    np.testing.assert_allclose(pipe.caption_loss(pipe.image_tokenizer.encode(pixels)[0], texts), whole[0])
    np.testing.assert_allclose(pipe.caption_loss(wide, texts), whole[0])  # its middle


def test_pictures_are_ranked_by_how_well_a_text_fits(
    home: Path, pipe: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, text in enumerate(TEXTS.values()):
        ranked = pipe.rank(text, paths(home))
        losses = pipe.caption_loss(paths(home), text)
        assert ranked[0].index == number
        assert [each.caption_loss for each in ranked] == sorted(losses)
        assert [losses[each.index] for each in ranked] == sorted(losses)
    result = said(capsys, home, "rank", "a dog", *paths(home))
    assert result["pictures"][0]["path"] == str(paths(home)[3])
    assert [each["caption_loss"] for each in result["pictures"]] == pytest.approx(sorted(losses), abs=1e-4)


def test_the_best_candidates_are_kept_in_the_order_of_their_losses(
    home: Path, pipe: Pipeline, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = "two dogs on a blue ground"
    every = pipe.generate(text, 6)
    assert [each.caption_loss for each in every] == [None] * 6
    losses = pipe.caption_loss([each.codes for each in every], text)
    best = sorted(range(6), key=losses.__getitem__)[:3]
    kept = pipe.generate(text, 6, keep=3)
    assert [each.seed for each in kept] == best
    assert [each.caption_loss for each in kept] == pytest.approx(sorted(losses)[:3], abs=1e-5)
    assert all(each.image.tobytes() == every[each.seed].image.tobytes() for each in kept)
    assert [each.seed for each in pipe.generate(["a dog", text], 6, captioner="caption")[1]][:3] == best
    words = ("--num-candidates", 6, "--keep", 3, "--out", tmp_path)
    result = said(capsys, home, "generate", text, *words)
    assert [each["seed"] for each in result["pictures"]] == best
    assert [each["caption_loss"] for each in result["pictures"]] == pytest.approx(
        sorted(losses)[:3], abs=1e-4
    )
    with Image.open(result["pictures"][0]["path"]) as picture:
        assert json.loads(picture.text["cogview"])["caption_loss"] == result["pictures"][0]["caption_loss"]
    notes = [[f"{each['caption_loss']:.3f}" for each in result["pictures"]]]
    expected = contact_sheet([[each.image for each in kept]], [text], notes=notes)
    with Image.open(result["contact_sheets"][0]) as sheet:
        assert sheet.tobytes() == expected.tobytes()


def test_ranking_goes_on_where_it_was_stopped(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("generate", *TEXTS.values(), "--num-candidates", 9, "--keep", 2, "--out")
    whole = said(capsys, home, *words, tmp_path / "whole")
    really, drawn = drawing_run.picture_events, []

    def stopped(task: PictureTask, asked: Iterable[Prompt], previews: None = None) -> Iterator[object]:
        for event in really(task, (drawn.append(each) or each for each in asked)):  # type: ignore[func-returns-value]
            yield event
            if is_stopped and len(list((tmp_path / "out" / "001").glob("*.png"))) == 4:
                raise KeyboardInterrupt

    is_stopped = True
    monkeypatch.setattr(drawing_run, "picture_events", stopped)
    stop = [*words, tmp_path / "out", "--model", home / "tiny-model", "--captioner", home / "run"]
    assert main([*(str(word) for word in stop), "--device", "cpu"]) == 130
    assert len(list((tmp_path / "out" / "001").glob("*.png"))) == 4
    is_stopped = False
    drawn.clear()
    result = said(capsys, home, *words, tmp_path / "out")
    assert len(drawn) == 2  # of four texts
    for one, other in zip(result["pictures"], whole["pictures"], strict=True):
        assert one | {"path": ""} == other | {"path": ""}
        assert Path(one["path"]).read_bytes() == Path(other["path"]).read_bytes()
    sheets = [Path(each["contact_sheets"][0]).read_bytes() for each in (result, whole)]
    assert sheets[0] == sheets[1]


def test_a_picture_that_was_drawn_twice_is_kept_once_while_there_are_others(pipe: Pipeline) -> None:
    text = "two dogs on a blue ground"
    one, other = torch.stack([each.codes for each in pipe.generate(text, 2)])
    assert not torch.equal(one, other)
    drawn = torch.stack([one, one, other, one, other])
    losses = pipe.caption_loss([one, other], text)
    of_each = [losses[0 if torch.equal(each, one) else 1] for each in drawn]
    ranked = best_of([each.numpy() for each in drawn], of_each, None)
    assert ranked == ([0, 2, 1, 3, 4] if losses[0] < losses[1] else [2, 0, 4, 1, 3])
    assert best_of([each.numpy() for each in drawn], of_each, 2) == ranked[:2]


def test_a_saved_model_has_its_captioner(home: Path, pipe: Pipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    back = cogview.load(tmp_path / "model", "cpu")
    assert back.captioner_names == ["caption"]
    assert back.caption(paths(home)[1])[0][0].text == TEXTS["green"]


def test_what_cannot_be_read_is_named_and_the_rest_is_done(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.png").write_text("no picture")
    good, bad, missing = paths(home)[0], tmp_path / "words.png", tmp_path / "missing.png"
    for verb in (["caption"], ["rank", "a dog"]):
        result = said(capsys, home, *verb, bad, good, missing, code=1)
        assert [each["path"] for each in result["pictures"]] == [str(good)]
        assert [each["where"] for each in result["problems"]] == [str(bad), str(missing)]
        one_broken = said(capsys, home, *verb, bad, code=1)
        assert f"{bad}: not a picture" in one_broken["error"]
        assert "%" not in one_broken["error"]
        assert one_broken["error"].count(str(bad)) == 1
        assert "none of the 2 pictures" in said(capsys, home, *verb, bad, missing, code=1)["error"]
        assert "no picture" in said(capsys, home, *verb, code=2)["error"]


def test_an_adapter_given_to_the_wrong_option_is_told_which_it_is_for(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--adapter", "--upscaler"):
        words = ("generate", "a cat", "--out", tmp_path / "out", option, home / "run", "--upscale", 2)
        error = said(capsys, home, *words, code=2)["error"]
        assert f"{option} {home / 'run'} is an adapter for captioning, which is for --captioner" in error
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    words = ("generate", "a cat", "--out", tmp_path / "out", "--adapter", tmp_path / "unfinished")
    assert "has not exported its adapter yet" in said(capsys, home, *words, code=1)["error"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("a red cat above a dog " * 9, "more than the 12"),
        (["a", ""], "text 2 of 2"),
    ],
)
def test_texts_that_cannot_be_scored_are_one_line(
    home: Path, pipe: Pipeline, text: str | list[str], problem: str
) -> None:
    with pytest.raises(cogview.UsageError, match=problem) as caught:
        pipe.caption_loss(paths(home)[0], text)
    assert "\n" not in str(caught.value)


def test_impossible_requests_are_one_line(
    home: Path, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths(home)[0]
    for request, problem in (
        (lambda: pipe.caption_loss([path] * 3, ["a cat", "a dog"]), "3 pictures and 2 texts"),
        (lambda: pipe.caption_loss([], "a cat"), "no picture"),
        (lambda: pipe.caption_loss(path, []), "no text"),
        (lambda: pipe.caption(torch.zeros(3, 16, 16)), "not codes"),
        (lambda: pipe.caption(torch.zeros(4, 4)), "not codes"),
        (lambda: pipe.caption(path, num_captions=0), "num_captions"),
        (lambda: pipe.caption(path, num_beams=0), "num_beams"),
        (lambda: pipe.caption(path, seed=-1), "seed"),
        (lambda: pipe.caption(path, temperature=-1), "temperature"),
        (lambda: pipe.caption(path, max_pieces=13), "max_pieces"),
        (lambda: pipe.caption(path, captioner="other"), "no captioner 'other'"),
        (lambda: pipe.generate("a cat", 2, keep=3), "keep"),
    ):
        with pytest.raises(cogview.UsageError, match=problem) as caught:
            request()
        assert "\n" not in str(caught.value)
    with pytest.raises(cogview.CogViewError, match="shape"):
        pipe.caption(torch.zeros(3, 4, dtype=torch.int64))
    monkeypatch.setattr(pipe.text_tokenizer, "unknown_piece", pipe.text_tokenizer.encode("a dog")[-1])
    with pytest.raises(cogview.UsageError, match="does not know"):
        pipe.caption_loss(path, "a dog")


def test_without_a_captioner_nothing_is_said_or_chosen(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = cogview.load(home / "tiny-model", "cpu")
    for request in (lambda: bare.caption(paths(home)[0]), lambda: bare.rank("a cat", paths(home))):
        with pytest.raises(cogview.UsageError, match="no captioner"):
            request()
    with pytest.raises(cogview.UsageError, match="needs ranking"):
        bare.generate("a cat", 4, keep=2)
    assert main(["caption", str(paths(home)[0]), "--model", str(home / "tiny-model")]) == 2
    assert "no captioner" in capsys.readouterr().err


def test_several_captioners_are_chosen_by_name(home: Path) -> None:
    pipe = cogview.load(home / "tiny-model", "cpu")
    for name in ("one", "other"):
        pipe.add_adapter(home / "run", name)
    with pytest.raises(cogview.UsageError, match="one, other"):
        pipe.caption(paths(home)[0])
    assert pipe.caption(paths(home)[0], captioner="other")[0][0].text == "a red cat"
