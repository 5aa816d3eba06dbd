"""What is out of a model's world is told, or refused; capitals are read; all else is as it was."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError, UsageError
from cogview.generation.pipeline import Pipeline
from cogview.image.reconstruction_quality import ReconstructionQuality
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel
from cogview.text.known_words import KnownWords, count_words
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from tiny import CAPTIONS, tiny_model

SOON = {"num_candidates": 2, "seed": 3}
NOTHING_KEPT = ReconstructionQuality(num_pictures=1, median_db=40.0, least_db=40.0)
ALL_KEPT = ReconstructionQuality(num_pictures=1, median_db=0.0, least_db=0.0)


def captioner(model: PretrainedModel, words: KnownWords | None) -> TaskModel:
    adapted = AdaptedTransformer(model.transformer, AdapterConfig(rank=2), 1)
    template = {"grid_rows": 4, "grid_columns": 4, "max_text_pieces": 12, "positions": "from_zero"}
    return TaskModel(task="captioning", transformer=adapted, template=template, words=words)


@pytest.fixture(scope="module")
def untold(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    """Return a model that does not say which words it knows."""
    return tiny_model(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def told(untold: PretrainedModel) -> PretrainedModel:
    assert untold.text_tokenizer is not None
    words = KnownWords.of_counts(count_words(CAPTIONS, untold.text_tokenizer))
    return dataclasses.replace(untold, words=words, text_case="usual", adapters={})


@pytest.fixture(scope="module")
def folder(told: PretrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write that model with a captioner, which knows the zebra too, and an image tokenizer that keeps nothing."""
    path = tmp_path_factory.mktemp("told") / "model"
    model = dataclasses.replace(told, adapters={})
    model.adapters["caption"] = captioner(model, KnownWords.of_counts({"zebra": 1}))
    assert model.image_tokenizer is not None
    model.image_tokenizer.held_out = NOTHING_KEPT
    save_pretrained(model, path)
    model.image_tokenizer.held_out = None
    return path


def test_a_folder_keeps_words_and_case(folder: Path, told: PretrainedModel, untold: PretrainedModel) -> None:
    read = load_pretrained(folder)
    assert read.text_case == "usual"
    assert read.words is not None
    assert told.words is not None
    assert read.words.counts == told.words.counts
    learnt = read.adapters["caption"].words
    assert learnt is not None
    assert learnt.counts == {"zebra": 1}
    assert (untold.words, untold.text_case) == (None, "as_written")


def test_a_model_from_before_reads_as_written_and_another_case_is_refused(
    untold: PretrainedModel, tmp_path: Path
) -> None:
    save_pretrained(untold, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["text_case"]
    path.write_text(json.dumps(config))
    assert load_pretrained(tmp_path / "model").text_case == "as_written"
    path.write_text(json.dumps(config | {"text_case": ["lower"]}))
    with pytest.raises(CogViewError, match="as_written or usual"):
        load_pretrained(tmp_path / "model")


@pytest.mark.slow
def test_texts_of_the_world_are_drawn_as_ever(told: PretrainedModel, untold: PretrainedModel) -> None:
    texts = list(dict.fromkeys(CAPTIONS))
    assert torch.equal(
        Pipeline(told).generate_codes(texts, **SOON),
        Pipeline(untold).generate_codes(texts, **SOON),
    )


def test_capitals_draw_what_small_letters_draw_and_the_picture_tells_both(told: PretrainedModel) -> None:
    pipe = Pipeline(told)
    loud, plain = pipe.generate(["A RED Cat above a dog", "a red cat above a dog"], **SOON)
    for one, other in zip(loud, plain, strict=True):
        assert torch.equal(one.codes, other.codes)
        assert (one.text, one.drawn_text) == ("A RED Cat above a dog", other.text)
        assert other.drawn_text is None
    assert torch.equal(
        pipe.generate_codes("A RED Cat above a dog", **SOON)[0], torch.stack([each.codes for each in plain])
    )


def test_unknown_words_are_told_in_one_line_or_refused(told: PretrainedModel) -> None:
    pipe = Pipeline(told)
    with pytest.warns(
        UserWarning, match=r"never seen: Sun \(in \"a Sun\"\), zebra \(in \"a zebra\"\)\. .*'cogview words'"
    ) as caught:
        drawn = pipe.generate(["a Sun", "a zebra"], num_candidates=1)
    assert len(caught) == 1
    assert len(drawn) == 2
    with pytest.raises(UsageError, match=r"never seen: zebra\. .*'cogview words' lists"):
        pipe.generate("a zebra", strict=True)
    with pytest.raises(UsageError, match=r"never seen: zebra\. "):
        pipe.generate_codes("a zebra", strict=True)


def test_a_long_list_is_cut_and_a_cut_vocabulary_said_to_be_so(told: PretrainedModel) -> None:
    words = [f"word{number}" for number in range(15)]
    cut = dataclasses.replace(told, words=KnownWords(counts={"a": 1}, num_left_out=1))
    with pytest.raises(UsageError, match=r"hardly ever, or never, seen: word0, .*, word11 and 3 more\."):
        Pipeline(cut).model.known_spellings([" ".join(words)], strict=True)


@pytest.mark.slow
def test_the_words_of_an_adapter_count_and_one_that_tells_none_is_not_doubted(
    told: PretrainedModel,
) -> None:
    model = dataclasses.replace(told, adapters={})
    model.adapters["knows"] = captioner(model, KnownWords.of_counts({"zebra": 1}))
    model.adapters["silent"] = captioner(model, None)
    pipe = Pipeline(model)
    codes = torch.zeros(4, 4, dtype=torch.int64)
    for name in ("knows", "silent"):
        zebra, cat = pipe.caption_loss(codes, ["a ZEBRA", "A RED cat"], name)
        assert [zebra, cat] == pipe.caption_loss(
            codes, ["a zebra" if name == "knows" else "a ZEBRA", "a red cat"], name
        )
    with pytest.warns(UserWarning, match="never seen: giraffe"):
        pipe.rank("a giraffe", [codes], "knows")
    with pytest.raises(UsageError, match="never seen: giraffe"):
        pipe.rank("a giraffe", [codes], "knows", strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.rank("a giraffe", [codes], "silent", strict=True)


@pytest.mark.slow
def test_pictures_that_the_tokenizer_hardly_keeps_are_told(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    picture.save(tmp_path / "photo.png")
    pipe = cogview.load(folder, "cpu")
    with pytest.warns(UserWarning, match=r"picture 1: .* \d+\.\d dB .* 40\.0"):
        captions = pipe.caption(picture)
    with pytest.warns(UserWarning, match=r"photo\.png: .* dB"):
        assert pipe.caption(tmp_path / "photo.png") == captions
    with pytest.raises(UsageError, match=r"picture 1: .* strict"):
        pipe.rank("a cat", [picture], strict=True)
    pipe.image_tokenizer.held_out = ALL_KEPT
    assert pipe.caption(picture, strict=True) == captions


@pytest.mark.slow
def test_the_command_warns_and_refuses_with_exit_code_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.png")
    of_model = ["--model", str(folder), "--device", "cpu"]
    drawing = ["generate", "a zebra", *["a cat"] * 17, "a кот", "--num-candidates", "1", *of_model]
    for words, told in (
        (drawing, 'the model has never seen: zebra (in "a zebra"), кот (in "a кот").'),
        (["caption", "photo.png", *of_model], "photo.png: the image tokenizer keeps"),
        (["rank", "a cat", "photo.png", *of_model], "photo.png: the image tokenizer keeps"),
    ):
        assert main([*words, "--strict"]) == 2
        assert f"cogview: error: {told}" in capsys.readouterr().err
        assert words[0] != "generate" or not Path("out").exists()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert main(words) == 0
        assert f"cogview: warning: {told}" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["rank", "a giraffe", "photo.png", *of_model]) == 0
    assert "cogview: warning: the model has never seen: giraffe. " in capsys.readouterr().err
