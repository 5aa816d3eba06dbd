"""`cogview train decoder`: a run from pictures to a tokenizer that draws larger, and a model that draws with it."""

import base64
import io
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cogview
from cogview.cli.main import main
from cogview.generation.pipeline import Pipeline
from cogview.image.reconstruction_quality import ReconstructionQuality
from cogview.models.folder import save_pretrained
from tiny import tiny_model

pytestmark = pytest.mark.slow

TINY = ["train", "decoder", "tiny", "--training.num-steps", "4", "--training.log-every-steps", "1"]
TINY += ["--size-pixels", "16", "--decoder.judged-pixels", "16"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return noise of 32 x 32 pixels, some of it held out."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(10):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        split = "held-out-object" if number > 7 else "train"
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "noise", "split": split}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_pretrained(tiny_model(tmp_path), tmp_path / "model")
    return tmp_path / "model"


def train(pictures: Path, model: Path, out: Path, *more: str) -> int:
    words = [*TINY, "--data", pictures, "--image-tokenizer", model, "--out", out, *more]
    return main([str(word) for word in words])


def test_a_model_draws_larger_with_what_was_trained(pictures, model, tmp_path, capsys):
    before = cogview.load(model, device="cpu")
    assert before.size_pixels == 16
    assert train(pictures, model, tmp_path / "run") == 0
    told = capsys.readouterr().out
    assert "psnr_x2_db" in told
    assert "bicubic_x2_db" in told
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    tokenizer = cogview.load_image_tokenizer(tmp_path / "run")
    assert tokenizer.fingerprint == before.image_tokenizer.fingerprint
    assert tokenizer.scales == [1, 2]
    assert list(tokenizer.decoders) == ["x1-x2"]

    shutil.copytree(tmp_path / "run" / "model" / "decoders", model / "image_tokenizer" / "decoders")
    pipe = cogview.load(model, device="cpu")
    assert pipe.size_pixels == 32
    for size in (None, 16, 32):
        [picture] = pipe.generate("a red cat", 1, seed=3, size_pixels=size)
        [plain] = before.generate("a red cat", 1, seed=3)
        assert picture.image.size == (size or 32, size or 32)
        assert torch.equal(picture.codes, plain.codes)
        expected = pipe.image_tokenizer.decode(plain.codes[None], size or 32)
        assert (
            np.abs(np.asarray(picture.image) / 127.5 - 1 - expected[0].permute(1, 2, 0).numpy()).max() < 0.01
        )
    with pytest.raises(cogview.UsageError, match="16 or 32"):
        pipe.generate("a red cat", 1, size_pixels=64)

    assert pipe.image_tokenizer.decoders.keys() == {"x1-x2"}
    Pipeline(tiny_model(tmp_path)).save_pretrained(tmp_path / "other")  # has none, and is another folder
    with pytest.raises(cogview.CogViewError, match="decoder x1-x2"):
        before.save_pretrained(model)
    pipe.save_pretrained(tmp_path / "copy")
    assert cogview.load(tmp_path / "copy", device="cpu").size_pixels == 32


def test_generate_writes_the_size_that_is_asked_for(pictures, model, tmp_path, capsys):
    assert train(pictures, model, tmp_path / "run") == 0
    shutil.copytree(tmp_path / "run" / "model" / "decoders", model / "image_tokenizer" / "decoders")
    words = [
        "generate",
        "a red cat",
        "--model",
        str(model),
        "--num-candidates",
        "2",
        "--json",
        "--device",
        "cpu",
    ]
    sizes: dict[tuple[str, ...], set[tuple[int, int]]] = {}
    for size in ([], ["--size", "16"]):
        capsys.readouterr()
        assert main([*words, "--out", str(tmp_path / "out"), *size]) == 0
        drawn = json.loads(capsys.readouterr().out)
        for each in drawn["pictures"]:
            with Image.open(each["path"]) as image:
                sizes.setdefault(tuple(size), set()).add(image.size)
                assert json.loads(image.info["cogview"])["size_pixels"] == (16 if size else 32)
    assert sizes == {(): {(32, 32)}, ("--size", "16"): {(16, 16)}}
    assert main([*words, "--out", str(tmp_path / "out"), "--size", "100"]) == 2
    assert "cannot be drawn with 100 pixels" in capsys.readouterr().err


def test_a_report_shows_what_is_drawn_by_default_and_with_what(pictures, model, tmp_path):
    assert train(pictures, model, tmp_path / "run") == 0
    shutil.copytree(tmp_path / "run" / "model" / "decoders", model / "image_tokenizer" / "decoders")
    (tmp_path / "texts").write_text("a red cat\n")
    words = ["evaluate", "model", "--model", model, "--prompts", tmp_path / "texts", "--seeds", "0"]
    assert main([str(word) for word in (*words, "--out", tmp_path / "report", "--device", "cpu")]) == 0
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert "16 x 16 or 32 x 32 pixels as 4 x 4 codes" in json.dumps(told)
    assert "decoder x1-x2" in json.dumps(told)
    page = (tmp_path / "report" / "report.html").read_text()
    shown = [
        Image.open(io.BytesIO(base64.b64decode(each))).size
        for each in re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)
    ]
    assert (32, 32) in shown


def test_pictures_are_enlarged_by_the_decoder_unless_an_upscaler_is_named(pictures, model, tmp_path, capsys):
    assert train(pictures, model, tmp_path / "run") == 0
    shutil.copytree(tmp_path / "run" / "model" / "decoders", model / "image_tokenizer" / "decoders")
    pipe = cogview.load(model, device="cpu")
    [plain] = pipe.generate("a red cat", 1, seed=3, size_pixels=16)
    [twice] = pipe.generate("a red cat", 1, seed=3, upscale=2)
    [again] = pipe.upscale(plain.codes, "a red cat")
    expected = pipe.generate("a red cat", 1, seed=3, size_pixels=32)[0].image
    for each in (twice, again):
        assert torch.equal(each.codes, plain.codes)
        assert np.array_equal(np.asarray(each.image), np.asarray(expected))
    with pytest.raises(cogview.UsageError, match=r"size_pixels=16 and upscale=2.* 32 pixels"):
        pipe.generate("a red cat", 1, size_pixels=16, upscale=2)
    with pytest.raises(cogview.UsageError, match="super-resolution"):
        pipe.upscale(plain.codes, "a red cat", 4)  # no decoder draws that
    with pytest.raises(cogview.UsageError, match=r"factor.* 2 or 4.* 1$"):
        pipe.upscale(plain.codes, "a red cat", 1)
    with pytest.raises(cogview.UsageError, match="a text is empty"):
        pipe.upscale(plain.codes, " ")

    plain.image.save(tmp_path / "small.png")
    words = ["upscale", "a red cat", tmp_path / "small.png", "--model", model, "--device", "cpu"]
    words = [str(word) for word in (*words, "--out", tmp_path / "out")]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert "enlarged by the image tokenizer's decoder" in told.err
    [written] = json.loads(told.out)["pictures"]
    with Image.open(written["path"]) as image:
        assert image.size == (32, 32)
    assert main([*words, "--top-p", "0.5"]) == 2
    assert "--top-p is for super-resolution" in capsys.readouterr().err
    with pytest.raises(cogview.UsageError, match="temperature is for super-resolution"):
        pipe.upscale(plain.codes, "a red cat", temperature=0.5)
    assert main([words[0], words[1], written["path"], *words[3:]]) == 2
    assert "has 32 pixels a side, and would be upscaled to 32" in capsys.readouterr().err
    wide = torch.cat([plain.codes, plain.codes], dim=1)
    [larger] = pipe.upscale(wide, "two red cats")
    assert larger.image.size == (64, 32)
    with pytest.raises(cogview.UsageError, match="different grids"):
        pipe.upscale([wide, plain.codes], "red cats")
    none = pipe.image_tokenizer.decode(plain.codes[None][:0], 32)
    assert none.shape == (0, 3, 32, 32)


def test_what_the_tokenizer_hardly_keeps_is_upscaled_by_force_alone(pictures, model, tmp_path, capsys):
    assert train(pictures, model, tmp_path / "run") == 0
    tokenizer = cogview.load_image_tokenizer(tmp_path / "run")
    tokenizer.held_out = ReconstructionQuality(num_pictures=3, median_db=40.0, least_db=39.0)
    shutil.rmtree(model / "image_tokenizer")
    tokenizer.save_pretrained(model / "image_tokenizer")
    picture = tmp_path / "small.png"
    Image.open(pictures / "0.png").resize((16, 16)).save(picture)
    words = ["upscale", "noise", str(picture), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "the image tokenizer keeps" in told
    assert "or force it (--force, force=True)" in told
    assert not (tmp_path / "out").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*words, "--force"]) == 0
    assert "the result means little" in capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1


def test_a_run_goes_on_and_others_decoders_are_kept(pictures, model, tmp_path, capsys):
    only_twice = ["--decoder.scales", "2", "--name", "twice"]
    assert train(pictures, model, tmp_path / "twice", *only_twice) == 0
    assert train(pictures, model, tmp_path / "twice", *only_twice) == 2  # a run is there
    assert "resume it" in capsys.readouterr().err
    assert train(pictures, model, tmp_path / "twice", *only_twice, "--resume") == 0
    once = ["--decoder.scales", "1", "--name", "once"]
    assert train(pictures, tmp_path / "twice", tmp_path / "once", *once) == 0
    assert set(cogview.load_image_tokenizer(tmp_path / "once").decoders) == {"once", "twice"}
    capsys.readouterr()
    assert train(pictures, tmp_path / "once", tmp_path / "both") == 0
    told = capsys.readouterr().err
    for name, size in (("once", 1), ("twice", 2)):
        assert f"the decoder {name} draws the sizes {size}, some of which this one draws too" in told
    assert set(cogview.load_image_tokenizer(tmp_path / "both").decoders) == {"x1-x2"}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--size-pixels", "18"], "multiple of 4"),
        (["--name", "../away"], "name of a folder"),
        (["--decoder.scales", "3"], "some of 1, 2 and 4"),
        (["--decoder.judged-pixels", "4"], "leave nothing"),
        (["--training.compile"], "cannot be compiled"),
        (["--training.precision", "float16_o2"], "is for transformers"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    pictures, model, tmp_path, capsys, flags, complaint
):
    assert train(pictures, model, tmp_path / "run", *flags) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_from_a_decoder_of_the_same_shape(pictures, model, tmp_path, capsys):
    assert train(pictures, model, tmp_path / "first") == 0
    still = ["--training.learning-rate", "1e-30", "--training.num-steps", "1"]
    assert train(pictures, model, tmp_path / "then", "--start-from", tmp_path / "first", *still) == 0
    first, then, other = (tmp_path / each for each in ("first", "then", "other"))
    pictures_of = [
        cogview.load_image_tokenizer(each).decode(torch.zeros(1, 4, 4, dtype=torch.long), 32)
        for each in (first, then)
    ]
    assert torch.equal(*pictures_of)
    capsys.readouterr()
    assert train(pictures, model, other, "--start-from", first, "--decoder.channels", "24", "8") == 2
    assert "holds no decoder of this shape and these scales, but x1-x2" in capsys.readouterr().err
    assert train(pictures, model, other, "--start-from", "bundled") == 2
    assert "start from a decoder for the same codes" in capsys.readouterr().err
    assert not other.exists()
