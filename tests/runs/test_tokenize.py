"""Tokens are made from Python as from the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

import cogview
from cogview.cli.main import main
from tiny import tiny_pipeline_folder


@pytest.mark.filterwarnings("ignore:.*pictures left out")
def test_python_and_the_command_line_make_the_same_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, pictures = tiny_pipeline_folder(tmp_path), tmp_path / "pictures"
    pictures.mkdir()
    for name in ("red", "green"):
        Image.new("RGB", (16, 16), name).save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text(f"a {name} cat")
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "broken.txt").write_text("a cat")
    options = cogview.TokenizeOptions(
        data=pictures,
        out=tmp_path / "tokens",
        image_tokenizer=model,
        text_tokenizer=model,
        size_pixels=16,
        device="cpu",
    )
    with pytest.warns(UserWarning, match="pictures left out: 1"):
        report = cogview.tokenize(options)
    assert report is not None
    assert (report.num_pairs, report.num_problems) == (2, 1)
    words = ["tokenize", pictures, "--image-tokenizer", model, "--text-tokenizer", model]
    words += ["--size-pixels", 16, "--device", "cpu", "--json", "--out", tmp_path / "others"]
    assert main([str(word) for word in words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"folder": str(tmp_path / "others"), **json.loads(json.dumps(report.to_json()))}
    made = {path.relative_to(options.out) for path in options.out.rglob("*") if path.is_file()}
    assert made
    for path in made:
        assert (options.out / path).read_bytes() == (tmp_path / "others" / path).read_bytes()
