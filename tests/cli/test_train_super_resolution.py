"""Super-resolution learnt as an adapter: end to end from pictures at three sizes, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import cogview
from cogview.cli.main import main
from cogview.decoding.config import SamplingConfig
from cogview.errors import UsageError
from cogview.generation.super_resolution import SuperResolution
from cogview.generation.upscaler import Upscaler
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.runs import upscale_pictures
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.transformer.model import Transformer
from tiny import tiny_pipeline_folder

pytestmark = pytest.mark.slow

STEPS = ("--training.num-steps", "6", "--training.log-every-steps", "1", "--training.sample-every-steps", "6")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the model, pictures/, their tokens at three sizes and run/, an adapter trained on them."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_pipeline_folder(home)
    (home / "pictures").mkdir()
    lines = []
    for number, color in enumerate(("red", "green", "blue", "yellow")):
        Image.new("RGB", (64, 64), color).save(home / "pictures" / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "text": f"a {color} cat"})
    (home / "pictures" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for size in (16, 32, 64):
        words = ["tokenize", home / "pictures", "--image-tokenizer", model, "--text-tokenizer", model]
        words += ["--size-pixels", size, "--out", home / f"tokens-{size}", "--device", "cpu"]
        assert main([str(word) for word in words]) == 0
    assert main(training(home, home / "run", "--windows", home / "tokens-64")) == 0
    return home


def training(home: Path, out: Path, *more: object, low: int = 16, high: int = 32) -> list[str]:
    words = ["train", "super-resolution", "tiny", "--base", home / "tiny-model", "--out", out]
    words += ["--data", home / f"tokens-{high}", "--low", home / f"tokens-{low}"]
    return [str(word) for word in [*words, *STEPS, *more]]


def test_an_adapter_is_learnt_that_upscales_what_its_model_draws(home: Path) -> None:
    losses = [json.loads(line)["loss"] for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    with Image.open(home / "run" / "samples" / "step-00000006.png") as sheet:
        assert sheet.width > 3 * 32
    pipe = cogview.load(home / "tiny-model", "cpu")
    adapter = pipe.add_adapter(home / "run", "super-resolution")
    template = adapter.template_of(SuperResolutionTemplate, pipe.template.vocabulary)
    assert template == SuperResolutionTemplate.of(pipe.template, "after_low")
    codes = pipe.generate_codes("a red cat", 2)[0]
    pieces = pipe.text_tokenizer.encode("a red cat")
    upscaler = SuperResolution(pipe.model.runner_of(adapter), template)
    upscaled = upscaler.upscale(codes, [pieces] * 2, [0, 1], SamplingConfig(), factor=4)
    assert upscaled.shape == (2, 16, 16)
    assert not torch.equal(upscaled[0], upscaled[1])


def test_it_goes_on_beside_a_base_with_longer_texts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, fixed = load_pretrained(home / "tiny-model"), []
    for num_pieces in (12, 15):
        template = dataclasses.replace(model.template, image_positions="fixed", max_text_pieces=num_pieces)
        config = dataclasses.replace(model.config, num_positions=template.num_positions)
        base = dataclasses.replace(model, source=Transformer(config), template=template)
        save_pretrained(base, home / f"base-{num_pieces}")
        flags = ["--base", home / f"base-{num_pieces}", "--training.num-steps", 1]
        flags += ["--training.learning-rate", "1e-9", "--training.sample-every-steps", 0]
        flags += ["--start-from", home / "fixed-12"] if fixed else []
        assert main(training(home, home / f"fixed-{num_pieces}", *flags)) == 0
        weights = load_file(home / f"fixed-{num_pieces}" / "model" / "model.safetensors")
        fixed.append(weights["embedding.positions.weight"])
    assert "is an adapter of other weights" in capsys.readouterr().err
    assert len(fixed[1]) == len(fixed[0]) + 3
    torch.testing.assert_close(fixed[1][:13], fixed[0][:13], rtol=0, atol=1e-6)
    torch.testing.assert_close(fixed[1][16:], fixed[0][13:], rtol=0, atol=1e-6)


def test_the_two_ways_of_attention_learn_the_same(home: Path) -> None:
    losses = {}
    for attention in ("relaxed", "fused"):
        out = home / f"run-{attention}"
        assert main(training(home, out, "--attention", attention, "--training.sample-every-steps", 0)) == 0
        losses[attention] = [
            json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()
        ]
    assert losses["relaxed"] == pytest.approx(losses["fused"], rel=1e-5)


def test_tokens_that_are_no_pair_are_refused_before_anything_is_made(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(training(home, home / "other", high=64)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("cogview: error: ")
    assert "16x16 codes, but twice those of" in error
    assert not (home / "other").exists()


def test_what_is_generated_can_be_upscaled_in_the_same_call(home: Path) -> None:
    pipe = cogview.load(home / "tiny-model", "cpu")
    with pytest.raises(UsageError, match="super-resolution"):
        pipe.generate("a red cat", 1, upscale=2)
    with pytest.raises(UsageError, match=r"upscale.* 1, 2 or 4.* 3"):
        pipe.generate("a red cat", 1, upscale=3)
    pipe.add_adapter(home / "run", "large")
    seen: list[tuple[int, int]] = []
    pictures = pipe.generate("a red cat", 2, seed=5, upscale=2, progress=lambda *each: seen.append(each))
    low = pipe.generate_codes("a red cat", 2, seed=5)[0]
    alone = [pipe.upscale(codes, "a red cat", 2, seed=5 + number)[0] for number, codes in enumerate(low)]
    for picture, other in zip(pictures, alone, strict=True):
        assert torch.equal(picture.codes, other.codes)
        assert picture.image.tobytes() == other.image.tobytes()
        assert picture.image.size == (32, 32)
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {seen[-1][0]}


@pytest.mark.filterwarnings("ignore:.*not a picture that can be read:UserWarning")
def test_pictures_are_upscaled_from_the_command_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ["--model", str(home / "tiny-model"), "--upscaler", str(home / "run"), "--device", "cpu"]
    out = ["--out", str(home / "out"), "--json"]
    assert main(["generate", "a red cat", "--num-candidates", "1", "--upscale", "4", *model, *out]) == 0
    drawn = json.loads(capsys.readouterr().out)["pictures"]
    with Image.open(drawn[0]["path"]) as picture:
        assert picture.size == (64, 64)
    (home / "broken.png").write_bytes(b"no picture")
    given = [str(home / "pictures" / "0.png"), str(home / "broken.png"), str(home / "pictures" / "1.png")]
    assert main(["upscale", "a red cat", *given, "--force", *model, *out]) == 1
    printed = capsys.readouterr()
    assert printed.out, printed.err
    result = json.loads(printed.out)
    assert [each["seed"] for each in result["pictures"]] == [0, 1]
    assert [problem["where"] for problem in result["problems"]] == [given[1]]
    for each in result["pictures"]:
        with Image.open(each["path"]) as picture:
            assert picture.size == (32, 32)
            assert json.loads(picture.text["cogview"])["factor"] == 2
    monkeypatch.setattr(upscale_pictures, "_PICTURES_AT_ONCE", 1)
    really, upscaled = Upscaler.upscale, []

    def stopped(self: Upscaler, *arguments: object, **named: object) -> object:
        upscaled.append(arguments)
        if len(upscaled) == 2:
            raise KeyboardInterrupt
        return really(self, *arguments, **named)

    monkeypatch.setattr(Upscaler, "upscale", stopped)
    again = [
        "upscale",
        "a red cat",
        given[0],
        given[2],
        "--force",
        *model,
        "--out",
        str(home / "again"),
        "--json",
    ]
    assert main(again) == 130
    assert main(again) == 0
    printed = capsys.readouterr()
    assert "going on in" in printed.err
    assert "1 of 2 pictures" in printed.err
    assert len(upscaled) == 3
    for one, other in zip(json.loads(printed.out)["pictures"], result["pictures"], strict=True):
        assert Path(one["path"]).read_bytes() == Path(other["path"]).read_bytes()
    wrong = ["--upscaler", str(home / "tiny-model"), "--model", str(home / "tiny-model")]
    assert main(["upscale", "a red cat", given[0], *wrong]) != 0
    assert "Traceback" not in capsys.readouterr().err
