"""The whole path on one's own pictures: check, both trainings, tokens, pictures, and what is said when it fails."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import MAIN
from PIL import Image
from safetensors.torch import load_file

import cogview
from cogview.cli.main import main
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from cogview.runs import training
from cogview.text.known_words import KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.training.interruption import TrainingInterrupted

pytestmark = pytest.mark.slow

COLORS = {"red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色"}
SHORT = ("--training.num-steps", "2", "--training.log-every-steps", "1", "--training.batch-size", "2")
ONE_SAMPLE = ("--sample-texts", "red paper")


def make_pictures(folder: Path) -> Path:
    """Write eight pictures with two captions each, and a line that names a file which is no picture."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (english, chinese) in enumerate(list(COLORS.items()) * 2):
        name = f"images/{number}.png"
        Image.new("RGB", (40 + number, 36), english).save(folder / name)
        lines.append({"file_name": name, "texts": [f"{english} paper {number}", f"一张{chinese}的纸"]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walk the path once: pictures/, tokenizer/ (a run), tokens/, model/ (a run)."""
    home = tmp_path_factory.mktemp("home")
    pictures, tokenizer, tokens = make_pictures(home / "pictures"), home / "tokenizer", home / "tokens"
    for words in (
        ["train", "image-tokenizer", "tiny", "--data", pictures, "--out", tokenizer, *SHORT],
        ["tokenize", pictures, "--image-tokenizer", tokenizer, "--out", tokens, "--device", "cpu"],
        [
            "train",
            "text-to-image",
            "tiny",
            "--data",
            tokens,
            "--out",
            home / "model",
            "--held-out",
            tokens,
            *SHORT,
            *ONE_SAMPLE,
        ],
    ):
        assert main([str(word) for word in words]) == 0
    return home


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], exit_code: int, *words: object) -> str:
    assert main([str(word) for word in words]) == exit_code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("cogview: error: ")
    return error


def test_the_path_ends_in_pictures(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(
        capsys, "generate", "red paper", "--model", home / "model", "--num-candidates", 1, "--device", "cpu"
    )
    with Image.open(result["pictures"][0]["path"]) as picture:
        assert picture.size == (32, 32)


def test_a_check_counts_what_is_there_and_what_is_broken(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(capsys, "data", "check", home / "pictures", "--size-pixels", 38)
    assert (report["num_images"], report["num_captions"], report["num_problems"]) == (8, 16, 0)
    assert report["num_enlarged"] == 8  # the short side has 36 pixels
    broken = Path(shutil.copytree(home / "pictures", tmp_path / "broken"))
    (broken / "images" / "3.png").write_bytes(b"no picture")
    report = run(capsys, "data", "check", broken)
    assert (report["num_images"], report["num_problems"]) == (7, 1)
    assert report["problems"][0]["where"] == "images/3.png"
    assert main(["data", "check", str(broken)]) == 0
    assert "images/3.png" in capsys.readouterr().out
    assert main(["data", "check", str(home / "pictures"), "--strict"]) == 0
    assert main(["data", "check", str(broken), "--strict", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1]) == report
    assert "1 problems and 0 pictures whose captions are empty" in said.err.splitlines()[-1]


def test_tokens_carry_their_tokenizers_and_the_size_of_the_run(home: Path) -> None:
    names = {path.name for path in (home / "tokens").iterdir()}
    assert {"manifest.json", "text.model", "image_tokenizer"} <= names
    manifest = json.loads((home / "tokens" / "manifest.json").read_text())
    assert manifest["grid"] == [4, 4]  # 32 pixels, as the run of the tokenizer had it, by a factor of 8
    assert manifest["num_pairs"] == 8


def test_the_words_of_the_captions_go_from_tokens_to_the_model(home: Path) -> None:
    words, learnt = KnownWords.in_folder(home / "tokens"), KnownWords.in_folder(home / "model" / "model")
    assert words is not None
    assert learnt is not None
    assert words.counts == learnt.counts
    tokenizer = TextTokenizer.from_file(home / "tokens" / "text.model")
    lines = [
        json.loads(line) for line in (home / "pictures" / "metadata.jsonl").read_text("utf-8").splitlines()
    ]
    texts = [text for line in lines for text in (line.get("texts") or [line.get("text", "")])]
    assert any(map(str.strip, texts))
    for text in texts:
        assert learnt.unknown(text, tokenizer, "as_written") == []
    assert learnt.unknown("a zebra", tokenizer, "as_written")[-1] == "zebra"


def test_the_same_command_again_leaves_the_tokens_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "tokens").rglob("*")}
    words = ("--image-tokenizer", home / "tokenizer", "--out", home / "tokens", "--device", "cpu")
    result = run(capsys, "tokenize", home / "pictures", *words)
    assert (result["folder"], result["num_pairs"]) == (str(home / "tokens"), 8)
    assert {path: path.stat().st_mtime_ns for path in (home / "tokens").rglob("*")} == before


def test_ranks_share_the_work_and_the_last_tells_the_report(home: Path, tmp_path: Path) -> None:
    words = ["tokenize", home / "pictures", "--image-tokenizer", home / "tokenizer", "--device", "cpu"]
    words += ["--json", "--pairs-per-shard", 3, "--batch-size", 2]
    assert main([*map(str, words), "--out", "alone"]) == 0
    variables = os.environ | {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAIN, *map(str, words), "--out", "shared"],
            env=variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    results = list(map(json.loads, told))
    assert sorted(result["folder"] or "none yet" for result in results) == ["none yet", "shared"]
    for path in (tmp_path / "alone").rglob("*"):
        assert path.is_dir() or (tmp_path / "shared" / path.relative_to(tmp_path / "alone")).read_bytes() == (
            path.read_bytes()
        )
    assert len(list((tmp_path / "shared").rglob("*"))) == len(list((tmp_path / "alone").rglob("*")))


def test_an_interrupted_command_says_what_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode, calls = ImageTokenizer.encode, []

    def interrupted(tokenizer: ImageTokenizer, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(tokenizer, images)

    monkeypatch.setattr(ImageTokenizer, "encode", interrupted)
    words = ["tokenize", home / "pictures", "--image-tokenizer", home / "tokenizer", "--device", "cpu"]
    words += ["--pairs-per-shard", 2, "--batch-size", 2, "--out", "tokens"]
    assert main(list(map(str, words))) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"cogview: Stopped. What is done lies in {tmp_path / 'tokens.unfinished'}; the same command goes on."
    )
    assert run(capsys, *words)["num_pairs"] == 8
    assert calls == [2, 2, 2, 2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


@pytest.mark.parametrize("run_folder", ["tokenizer", "model"])
def test_a_run_leaves_sample_sheets_and_a_model(home: Path, run_folder: str) -> None:
    run_folder = home / run_folder
    with Image.open(run_folder / "samples" / "step-00000002.png") as sheet:
        sheet.load()
    assert (run_folder / "model" / "config.json").is_file()
    assert len((run_folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_resumed_run_that_is_done_reports_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = home / "tokens"
    words = [
        "train",
        "text-to-image",
        "tiny",
        "--data",
        tokens,
        "--out",
        home / "model",
        *SHORT,
        *ONE_SAMPLE,
        "--resume",
    ]
    result = run(capsys, *words, "--held-out", tokens)
    assert result["num_steps"] == 2
    assert result["metrics"]["image_loss_nats"] > 0
    assert result["evaluation"]["held_out"]["text_loss_nats"] > 0
    error = refusal(capsys, 2, *words, "--max-text-pieces", 9)
    assert "max_text_pieces" in error


def test_a_killed_run_resumes_bit_for_bit(home: Path, tmp_path: Path) -> None:
    words = ["train", "text-to-image", "tiny", "--data", str(home / "tokens"), "--training.num-steps", "30"]
    words += ["--training.checkpoint-every-steps", "10", "--training.sample-every-steps", "0"]
    assert main([*words, "--out", "whole"]) == 0
    checkpoints = tmp_path / "killed" / "checkpoints"
    command = [sys.executable, "-m", "cogview", *words, "--out", "killed"]
    # As many threads as the tests compute with: sums are split among them.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and not list(checkpoints.glob("step-*")):
            time.sleep(0.01)
        process.kill()
    assert not (checkpoints / "step-00000030").exists()
    assert main([*words, "--out", "killed", "--resume"]) == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        whole, resumed = (Path(run) / "checkpoints" / "step-00000030" / name for run in ("whole", "killed"))
        assert resumed.read_bytes() == whole.read_bytes()


def test_an_interrupted_run_says_how_to_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise TrainingInterrupted("Stopped after step 1 of 2.")

    monkeypatch.setattr(training, "train", interrupted)
    words = ["train", "text-to-image", "tiny", "--data", str(home / "tokens"), "--out", "run"]
    assert main(words) == 130
    assert (
        capsys.readouterr().err
        == "cogview: Stopped after step 1 of 2. The same command with --resume goes on.\n"
    )


def test_held_out_pictures_are_measured_and_not_learnt_from(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = Path(shutil.copytree(home / "pictures", tmp_path / "pictures", ignore=lambda *_: ["cache"]))
    lines = [json.loads(line) for line in (pictures / "metadata.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["split"] = "held-out-object" if number < 3 else "train"
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run(capsys, "train", "image-tokenizer", "tiny", "--data", pictures, "--out", "run", *SHORT)
    assert list(result["evaluation"]) == ["held-out-object"]
    assert result["evaluation"]["held-out-object"]["psnr_db"] > 0
    held_out = load_image_tokenizer(Path("run")).held_out
    assert held_out is not None
    assert held_out.num_pictures == 3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["num_pictures"] == 5


def test_an_empty_or_missing_folder_is_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    tokenizer = home / "tokenizer"
    for folder in ("empty", "absent"):
        refusal(capsys, 1, "data", "check", folder)
        refusal(capsys, 1, "tokenize", folder, "--image-tokenizer", tokenizer, "--out", "tokens")
        refusal(capsys, 1, "train", "image-tokenizer", "tiny", "--data", folder, "--out", "run")
        refusal(capsys, 1, "train", "text-to-image", "tiny", "--data", folder, "--out", "run")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_does_not_fit_is_refused_before_anything_is_written(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, tokenizer, tokens = home / "pictures", home / "tokenizer", home / "tokens"
    refusal(
        capsys, 2, "tokenize", pictures, "--image-tokenizer", tokenizer, "--out", tokens, "--batch-size", 3
    )
    size = ("--size-pixels", 33)
    assert "multiple of 8" in refusal(
        capsys, 2, "tokenize", pictures, "--image-tokenizer", tokenizer, "--out", "new", *size
    )
    refusal(capsys, 1, "tokenize", pictures, "--image-tokenizer", "absent", "--out", "new")
    refusal(capsys, 1, "tokenize", pictures, "--text-tokenizer", "absent.model", "--out", "new")
    error = refusal(capsys, 1, "generate", "a cat", "--model", tokenizer)
    assert "image tokenizer, not a whole model" in error
    copied = Path(shutil.copytree(tokens, tmp_path / "copied"))
    words = ("train", "text-to-image", "tiny", "--data", copied, "--out", "new")
    (copied / "text.model").write_bytes((home / "pictures" / "metadata.jsonl").read_bytes())
    refusal(capsys, 1, *words)
    shutil.copy(Path(training.__file__).parents[1] / "bundled" / "text.model", copied / "text.model")
    shutil.rmtree(copied / "image_tokenizer")
    assert "does not hold image_tokenizer" in refusal(capsys, 1, *words)
    assert not (tmp_path / "new").exists()
    assert not any((tmp_path / "out").glob("*"))


def test_a_tokenizer_beside_the_tokens_that_did_not_make_them_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(home / "tokens", tmp_path / "copied"))
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"image_tokenizer": "0" * 16}))
    error = refusal(capsys, 1, "train", "text-to-image", "tiny", "--data", copied, "--out", "new")
    assert "the tokens were made by 0000000000000000" in error


def test_what_cannot_work_is_said_before_the_training(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "text-to-image", "tiny", "--data", home / "tokens", "--out", tmp_path / "run", *SHORT]
    assert "a text of --sample-texts is empty" in refusal(capsys, 2, *words, "--sample-texts", "")
    other = tmp_path / "smaller"
    tokenizer = ("--image-tokenizer", home / "tokenizer", "--device", "cpu")
    run(capsys, "tokenize", home / "pictures", *tokenizer, "--size-pixels", 16, "--out", other)
    assert "but the model reads 4x4 codes" in refusal(capsys, 1, *words, "--held-out", other)
    assert "--kept-codes must be between 1 and the 16" in refusal(capsys, 2, *words, "--kept-codes", 17)
    assert not (tmp_path / "run").exists()


def test_a_sparse_transformer_is_trained_and_draws(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "text-to-image", "tiny", "--data", home / "tokens", "--out", tmp_path / "run", *SHORT]
    words += ["--transformer.attention-pattern", "three_region", "--transformer.qk-norm"]
    few = ("--transformer.three-region.num-text-and-pivot-tokens", 18)
    assert "must be at least 19, the tokens of the longest text, got 18" in refusal(capsys, 2, *words, *few)
    given = ("--transformer.three-region.num-image-tokens", 3)
    assert "num-image-tokens follows from the tokens" in refusal(capsys, 2, *words, *given)
    assert main([str(word) for word in (*words, "--start-from", tmp_path / "nowhere")]) == 1
    assert "so short that three-region attention sees all of them" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    regions = (
        "--transformer.three-region.block-tokens",
        4,
        "--transformer.three-region.key-window-blocks",
        2,
    )
    run(capsys, *words, *regions, "--transformer.three-region.num-text-and-pivot-tokens", 22)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["transformer"]
    assert config["three_region"]["num_image_tokens"] == 16
    assert config["three_region"]["num_text_and_pivot_tokens"] == 22
    run(capsys, "generate", "red paper", "--model", tmp_path / "run", "--out", tmp_path / "drawn")
    assert list((tmp_path / "drawn").glob("**/*seed0.png"))


def test_a_run_goes_on_with_the_tokens_that_it_began_with_only(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "text-to-image", "tiny", "--out", tmp_path / "run", *SHORT, *ONE_SAMPLE]
    run(capsys, *words, "--data", home / "tokens")
    pictures = make_pictures(tmp_path / "pictures")
    metadata = (pictures / "metadata.jsonl").read_text()
    (pictures / "metadata.jsonl").write_text(metadata.replace("red paper", "red cloth"))
    tokenizer = ("--image-tokenizer", home / "tokenizer", "--device", "cpu")
    run(capsys, "tokenize", pictures, *tokenizer, "--out", tmp_path / "other")
    error = refusal(capsys, 2, *words, "--data", tmp_path / "other", "--resume")
    assert "started with another config: tokens was" in error
    run(capsys, *words, "--data", home / "tokens", "--resume")


def test_a_finetune_goes_on_from_the_weights_of_a_model(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "text-to-image", "tiny", "--data", home / "tokens", *SHORT, *ONE_SAMPLE]
    tiny_rate = ("--training.learning-rate", "1e-12", "--training.weight-decay", "0")
    result = run(capsys, *words, "--out", tmp_path / "run", "--start-from", home / "model", *tiny_rate)
    assert result["num_steps"] == 2
    before, after = (
        load_file(folder / "model" / "model.safetensors") for folder in (home / "model", tmp_path / "run")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    other = ("--out", tmp_path / "other", "--start-from", home / "model", "--transformer.hidden-size", 32)
    assert "The transformer of" in refusal(capsys, 1, *words, *other)
    assert not (tmp_path / "other").exists()
    shipped = ("--out", tmp_path / "other", "--start-from", "bundled")
    assert "cogview/bundled is not that of this run" in refusal(capsys, 1, *words, *shipped)
    missing = ("--out", tmp_path / "other", "--start-from", tmp_path / "nothing")
    assert "nothing" in refusal(capsys, 1, *words, *missing)


def test_a_finetune_may_have_room_for_longer_texts(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "text-to-image",
        "tiny",
        "--data",
        home / "tokens",
        *SHORT,
        *ONE_SAMPLE,
        "--out",
        tmp_path / "run",
    ]
    tiny_rate = ("--training.learning-rate", "1e-12", "--training.weight-decay", "0")
    run(capsys, *words, "--start-from", home / "model", "--max-text-pieces", 20, *tiny_rate)
    before, after = (cogview.load(folder, device="cpu") for folder in (home / "model", tmp_path / "run"))
    assert (before.template.max_text_pieces, after.template.max_text_pieces) == (16, 20)
    drawn = [pipe.generate("red paper", 2, seed=5) for pipe in (before, after)]
    assert [picture.codes.tolist() for picture in drawn[0]] == [
        picture.codes.tolist() for picture in drawn[1]
    ]
    shorter = ("--start-from", tmp_path / "run", "--max-text-pieces", 16, "--out", tmp_path / "other")
    assert "The transformer of" in refusal(capsys, 1, *words[:-2], *shorter)


def test_tokens_for_a_model_are_made_with_what_its_run_holds(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, model = tmp_path / "tokens", home / "model"
    words = ["tokenize", home / "pictures", "--out", tokens, "--size-pixels", 32, "--device", "cpu"]
    run(capsys, *words, "--image-tokenizer", model, "--text-tokenizer", model)
    assert (tokens / "text.model").read_bytes() == (model / "model" / "text.model").read_bytes()


def test_held_out_pictures_are_whole_however_a_run_trains(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights stand all but still, so that what is measured at the end is the same if the same is measured."""
    tokens = home / "tokens"
    words = ["train", "text-to-image", "tiny", "--data", tokens, "--held-out", tokens, *SHORT, *ONE_SAMPLE]
    words += [
        "--start-from",
        home / "model",
        "--training.learning-rate",
        "1e-12",
        "--training.weight-decay",
        "0",
    ]
    plain = run(capsys, *words, "--out", tmp_path / "plain")
    for flag, *values in (
        ("--few-codes-first.fraction", "1", "--few-codes-first.kept-codes", "4"),
        ("--kept-codes", "3"),
        ("--masked-codes", "1"),
        ("--mixed-codes", "1"),
        ("--dropped-texts", "1"),
    ):
        other = run(capsys, *words, "--out", tmp_path / flag, flag, *values)
        assert other["evaluation"] == plain["evaluation"]
        assert other["metrics"]["image_loss_nats"] != plain["metrics"]["image_loss_nats"], flag
        config = json.loads((tmp_path / flag / "model" / "config.json").read_text())
        assert config["guidance"] == (1.5 if flag == "--dropped-texts" else 1.0)
        assert (
            f"Draws with top-p {config['top_p']:g}" in (tmp_path / flag / "model" / "README.md").read_text()
        )
