"""A style learnt as an adapter: end to end, killed and resumed, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import cogview
from cogview.cli.main import main
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.recipes import style
from cogview.runs import finetune as finetune_run
from cogview.runs import style as style_run
from cogview.runs.finetune import new_transformer
from cogview.runs.training import TrainingResult
from cogview.runs.training_options import StyleOptions
from cogview.transformer.adapter import AdaptedTransformer
from tiny import tiny_pipeline_folder

# The tiny text tokenizer needs more pieces for a style's text than the tiny model reads.
pytestmark = [pytest.mark.filterwarnings("ignore:.* more than .* pieces"), pytest.mark.slow]
COLORS = ("red", "green", "blue", "yellow")
STEPS = ("--training.num-steps", "6", "--training.log-every-steps", "1", "--training.batch-size", "8")
STEPS += ("--training.learning-rate", "0.01")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make model/, pictures/ and tokens/ once, and run/, an adapter trained on them."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_pipeline_folder(home)
    (home / "pictures").mkdir()
    lines = []
    for number, color in enumerate(COLORS * 2):
        Image.new("RGB", (16, 16), color).save(home / "pictures" / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "text": f"a {color} cat"})
    (home / "pictures" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "pictures" / "CREDITS.txt").write_text("The cats are by Mörike.\n", encoding="utf-8")
    words = ["tokenize", home / "pictures", "--image-tokenizer", model, "--text-tokenizer", model]
    words += ["--size-pixels", 16, "--out", home / "tokens", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    assert main(training(home, home / "run", "--style", "wiggly", "--licence", "CC-BY-SA-4.0")) == 0
    return home


def training(home: Path, out: Path, *more: object, steps: tuple[str, ...] = STEPS) -> list[str]:
    words = ["train", "style", "tiny", "--data", home / "tokens", "--base", home / "tiny-model", "--out", out]
    return [str(word) for word in [*words, *steps, *more]]


def some_steps(num: int, learning_rate: float) -> tuple[str, ...]:
    of_each = {"num-steps": num, "log-every-steps": 1, "learning-rate": learning_rate}
    return tuple(word for name, value in of_each.items() for word in (f"--training.{name}", str(value)))


def refusal(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) in (1, 2)
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("cogview: error: ")
    return error.splitlines()[-1]


def test_the_card_tells_the_licence_and_credits_whom_the_pictures_credit(home: Path) -> None:
    card = (home / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "license: CC-BY-SA-4.0\n" in card
    assert '"A cat of wiggly style" --adapter PATH_OF_THIS_FOLDER --model PATH_OF_ITS_BASE\n' in card
    assert card.endswith("\n```text\nThe cats are by Mörike.\n```\n")


def test_only_the_adapter_is_trained_stored_and_exported(home: Path) -> None:
    base = load_file(home / "tiny-model" / "model.safetensors")
    exported = load_file(home / "run" / "model" / "model.safetensors")
    checkpoint = load_file(home / "run" / "checkpoints" / "step-00000006" / "model.safetensors")
    assert exported.keys() == checkpoint.keys()
    assert exported.keys().isdisjoint(base)
    assert all(bool(tensor.any()) for name, tensor in exported.items() if ".up." in name)  # they have moved
    config = json.loads((home / "run" / "model" / "config.json").read_text())
    assert (config["format"], config["task"], config["licence"]) == (
        "cogview-adapter",
        "style",
        "CC-BY-SA-4.0",
    )
    assert "8 pictures" in (home / "run" / "model" / "README.md").read_text()
    with Image.open(home / "run" / "samples" / "step-00000006.png") as sheet:
        assert sheet.width > 16
    lines = (home / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["image_loss_nats"] for line in lines]
    assert losses[-1] < losses[0]


def test_pictures_are_drawn_with_it_from_its_run_its_folder_and_its_model(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = cogview.load(home / "tiny-model", "cpu")
    pipe.add_adapter(home / "run", "wiggly")
    expected = pipe.generate("a cat", 1, seed=7, adapter="wiggly")[0].image
    assert expected.tobytes() != pipe.generate("a cat", 1, seed=7)[0].image.tobytes()
    pipe.save_pretrained("with")
    for model, adapter in (
        (home / "tiny-model", home / "run"),
        (home / "tiny-model", home / "run" / "model"),
        ("with", "wiggly"),
    ):
        capsys.readouterr()
        words = ["generate", "a cat", "--model", model, "--adapter", adapter, "--seed", 7, "--device", "cpu"]
        assert main([*map(str, words), "--num-candidates", "1", "--json"]) == 0
        path = json.loads(capsys.readouterr().out)["pictures"][0]["path"]
        with Image.open(path) as picture:
            assert picture.tobytes() == expected.tobytes()
            assert json.loads(picture.text["cogview"])["adapter"] == str(adapter)
    stronger = pipe.generate("a cat", 1, seed=7, adapter="wiggly", adapter_strength=3.0)[0].image
    assert stronger.tobytes() != expected.tobytes()
    assert main([*map(str, words), "--num-candidates", "1", "--json", "--adapter-strength", "3"]) == 0
    with Image.open(json.loads(capsys.readouterr().out)["pictures"][0]["path"]) as picture:
        assert picture.tobytes() == stronger.tobytes()
        assert json.loads(picture.text["cogview"])["adapter_strength"] == 3


def test_a_killed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = (
        "--training.checkpoint-every-steps",
        "2",
        "--training.sample-every-steps",
        "3",
        "--style",
        "wiggly",
    )

    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(style_run, "draw_samples", crash)
        with pytest.raises(Crash):
            main(training(home, tmp_path / "killed", *every))
    names = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert names == ["step-00000002"]
    assert main(training(home, tmp_path / "killed", *every, "--resume")) == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        killed, whole = (
            run / "checkpoints" / "step-00000006" / name for run in (tmp_path / "killed", home / "run")
        )
        assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("style_words", [(), ("--style", "wiggly")], ids=["captions", "style"])
def test_the_rows_of_the_words_that_are_learnt_can_be_trained(
    style_words: tuple[str, ...], home: Path, tmp_path: Path
) -> None:
    assert main(training(home, tmp_path / "run", "--trains-words", *style_words)) == 0
    model = load_pretrained(home / "tiny-model")
    encode, vocabulary = (
        cogview.load(home / "tiny-model", "cpu").text_tokenizer.encode,
        model.template.vocabulary,
    )
    texts = [f"a {color} cat" for color in COLORS]
    if style_words:
        texts = [text.format(style="wiggly") for text in style_run.STYLE_TEXTS]
    tokens = sorted({vocabulary.text_pieces[piece] for text in texts for piece in encode(text)})
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["adapter"]["token_rows"] == tokens
    exported = load_file(tmp_path / "run" / "model" / "model.safetensors")
    rows = exported["embedding.tokens.rows"].float()
    held = model.transformer.embedding.tokens.weight[tokens]
    assert bool((rows != held.half().float()).any(dim=1).all())  # each has moved
    pipe = cogview.load(home / "tiny-model", "cpu")
    pipe.add_adapter(tmp_path / "run", "words")
    assert len(pipe.generate(texts[0], 2, adapter="words")) == 2


def test_captions_are_learnt_where_no_style_is_named(home: Path, tmp_path: Path) -> None:
    assert main(training(home, tmp_path / "captions")) == 0
    described = [
        json.loads((run / "config.json").read_text()) for run in (tmp_path / "captions", home / "run")
    ]
    assert [each["recipe"]["style"] for each in described] == [None, "wiggly"]
    weights = [
        load_file(run / "model" / "model.safetensors") for run in (tmp_path / "captions", home / "run")
    ]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_all_weights_can_be_learnt_instead(home: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        style.tiny(), adapter=None, training=dataclasses.replace(style.tiny().training, num_steps=2)
    )
    model = str(home / "tiny-model")
    options = StyleOptions(
        data=home / "tokens", out=tmp_path / "run", base=model, style="wiggly", sample_texts=("a cat",)
    )
    result = cogview.train(recipe, options)
    assert result is not None
    assert (result.summary.num_steps, result.model) == (2, tmp_path / "run" / "model")
    pipe = cogview.load(model, "cpu")
    pipe.add_adapter(tmp_path / "run", "whole")
    found = pipe.adapters["whole"].transformer
    assert not isinstance(found, AdaptedTransformer)
    base = pipe.transformer.state_dict()
    assert {
        name for name, each in found.state_dict().items() if torch.equal(each, base[name].half())
    } == set()
    assert pipe.generate_codes("a cat", adapter="whole").shape == (1, 4, 4, 4)


def test_few_codes_of_each_picture_can_be_learnt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, finetune = [], style_run.finetune

    def watched(*given: Any, **options: Any) -> TrainingResult | None:
        learnt.append(given[3].batch(0))
        return finetune(*given, **options)

    monkeypatch.setattr(style_run, "finetune", watched)
    few = ("--kept-codes", "4", "--masked-codes", "1")
    for name, flags in (("all", ()), ("few", few)):
        assert main(training(home, tmp_path / name, "--style", "wiggly", *flags)) == 0
    assert [batch.image_mask.sum(axis=1).tolist() for batch in learnt] == [[16] * 8, [4] * 8]
    told = [
        json.loads((tmp_path / name / "config.json").read_text())["recipe"]["kept_codes"]
        for name in ("all", "few")
    ]
    assert told == [None, 4]
    assert main(training(home, tmp_path / "few", "--style", "wiggly", *few, "--resume")) == 0
    assert main(training(home, tmp_path / "few", "--style", "wiggly", "--resume")) == 2


@pytest.mark.parametrize("whole", [False, True])
def test_positions_beyond_the_base_are_learnt_too(home: Path, whole: bool) -> None:
    base = load_pretrained(home / "tiny-model").transformer
    recipe = dataclasses.replace(style.tiny(), adapter=None) if whole else style.tiny()
    held = base.embedding.positions.weight.clone()
    longer = new_transformer(recipe, base, base.config.num_positions + 5)
    assert longer.config.num_positions == len(held) + 5
    assert torch.equal(longer.embedding.positions.weight[: len(held)], held)
    assert longer.embedding.positions.weight.requires_grad
    assert longer.hidden_states(torch.tensor([[1]]), torch.tensor([[len(held) + 4]])).shape == (1, 1, 32)
    given = torch.ones(7, 32)
    told = new_transformer(recipe, base, 7, given)
    assert torch.equal(told.embedding.positions.weight, given)
    assert len(base.embedding.positions.weight) == len(held)


def test_what_cannot_be_is_refused_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert "--style is empty" in refusal(capsys, training(home, out, "--style", " "))
    assert "--sample-texts is empty" in refusal(capsys, training(home, out, "--sample-texts", " "))
    assert "adapter.rank must be at least 1" in refusal(capsys, training(home, out, "--adapter.rank", 0))
    assert "--dropped-texts must be a share" in refusal(capsys, training(home, out, "--dropped-texts", 2))
    assert "--kept-codes must be between 1 and the 16" in refusal(
        capsys, training(home, out, "--kept-codes", 17)
    )
    assert "was made with another image tokenizer" in refusal(
        capsys, ["train", "style", "tiny", "--data", str(home / "tokens"), "--out", str(out)]
    )
    assert "was started with another config" in refusal(
        capsys, training(home, home / "run", "--style", "other", "--resume")
    )
    assert "is an adapter, not a whole model" in refusal(
        capsys, ["generate", "a cat", "--model", str(home / "run")]
    )
    assert "--adapter-strength is 0.5, but there is no adapter: name one (--adapter)" in refusal(
        capsys, ["generate", "a cat", "--adapter-strength", "0.5", "--out", str(tmp_path / "pictures")]
    )
    assert "is neither an adapter of this model nor a folder" in refusal(
        capsys, ["generate", "a cat", "--model", str(home / "tiny-model"), "--adapter", "nothing"]
    )
    assert "trained with other weights" in refusal(
        capsys, ["generate", "a cat", "--adapter", str(home / "run"), "--out", str(tmp_path / "pictures")]
    )
    monkeypatch.setattr(finetune_run.os, "environ", {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"})
    assert "start it without torchrun" in refusal(capsys, training(home, out))
    assert not out.exists()


def test_a_run_starts_as_another_adapter(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "started"
    flags = ("--style", "wiggly", "--start-from", home / "run", "--training.sample-every-steps", 0)
    assert main(training(home, out, *flags, steps=some_steps(1, 1e-9))) == 0
    weights, before = (load_file(home / run / "model" / "model.safetensors") for run in ("started", "run"))
    assert weights.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6)
    assert any(bool(tensor.any()) for name, tensor in before.items() if ".up." in name), (
        "a fresh one proves nothing"
    )
    capsys.readouterr()
    words = training(home, home / "other", *flags, "--adapter.rank", 3)
    assert refusal(capsys, words).endswith(
        f"{home / 'run'} has another shape than the model to train: rank is 2 there and 3 here"
    )
    assert not (home / "other").exists()


def test_a_run_starts_as_the_adapter_of_an_earlier_model(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_pretrained(home / "tiny-model")
    with torch.no_grad():
        model.transformer.final_norm.weight += 0.5
    save_pretrained(model, tmp_path / "newer")
    options = ("--start-from", home / "run", "--base", tmp_path / "newer", "--training.sample-every-steps", 0)
    assert main(training(home, tmp_path / "again", *options, steps=some_steps(1, 1e-9))) == 0
    assert "is an adapter of other weights" in capsys.readouterr().err
    before, after = (
        load_file(run / "model" / "model.safetensors") for run in (home / "run", tmp_path / "again")
    )
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    generate = ["generate", "a cat", "--model", str(tmp_path / "newer"), "--out", str(tmp_path / "pictures")]
    assert main([*generate, "--adapter", str(tmp_path / "again"), "--num-candidates", "1"]) == 0
    message = refusal(capsys, [*generate, "--adapter", str(home / "run")])
    assert message.endswith("or train it for this one (--start-from).")


def test_words_that_were_learnt_stay_when_others_come(home: Path) -> None:
    flags = ("--trains-words", "--training.sample-every-steps", 0)
    assert main(training(home, home / "words", "--style", "a", *flags, steps=some_steps(2, 1e-2))) == 0
    more = ("--style", "cat dog", *flags, "--start-from", home / "words")
    assert main(training(home, home / "more-words", *more, steps=some_steps(1, 1e-9))) == 0
    rows, ids = [], []
    for run in ("words", "more-words"):
        folder = home / run / "model"
        rows.append(load_file(folder / "model.safetensors")["embedding.tokens.rows"].float())
        ids.append(json.loads((folder / "config.json").read_text())["adapter"]["token_rows"])
    num = len(ids[0])
    assert ids[1][:num] == ids[0]
    assert len(ids[1]) > num
    torch.testing.assert_close(rows[1][:num], rows[0], rtol=0, atol=1e-6)
    # An adapter is kept in half precision.
    of_base = load_file(home / "tiny-model" / "model.safetensors")["embedding.tokens.weight"].half().float()
    torch.testing.assert_close(rows[1][num:], of_base[ids[1][num:]], rtol=0, atol=1e-6)
    assert not torch.allclose(rows[0], of_base[ids[0]], rtol=0, atol=1e-6)
