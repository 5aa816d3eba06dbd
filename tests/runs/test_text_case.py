"""A model that reads lower case is trained on lower case, whatever the task and however the captions are written."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

import cogview
from cogview.data.shards import TokenShards
from cogview.errors import UsageError
from cogview.models.folder import save_pretrained
from cogview.models.pretrained import PretrainedModel
from cogview.recipes import captioning, style, super_resolution, text_to_image
from cogview.runs.style import STYLE_TEXTS, _texts_of, train_style
from cogview.runs.text_case import refuse_capitals
from cogview.runs.text_to_image import _new_model
from cogview.runs.tokenizers import text_case_beside
from cogview.runs.train import train
from cogview.runs.training_options import (
    CaptioningOptions,
    StyleOptions,
    SuperResolutionOptions,
    TextToImageOptions,
)
from cogview.text.known_words import WORDS_FILE, KnownWords
from cogview.text.tokenizer import TextTokenizer
from tiny import tiny_model

YOUTOKENTOME = Path(__file__).parents[1] / "text" / "youtokentome.model"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make model/, which reads lower case, pictures/, lower/ by the model's folder, and written/ by its file."""
    home = tmp_path_factory.mktemp("home")
    save_pretrained(dataclasses.replace(tiny_model(home), text_case="lower"), home / "model")
    (home / "pictures").mkdir()
    for number, text in enumerate(("A Red CAT", "a dog")):
        Image.new("RGB", (20, 20), "red").save(home / "pictures" / f"{number}.png")
        (home / "pictures" / f"{number}.txt").write_text(text)
    for out, text_tokenizer in (("lower", home / "model"), ("written", home / "model" / "text.model")):
        options = cogview.TokenizeOptions(
            data=home / "pictures",
            out=home / out,
            image_tokenizer=home / "model",
            text_tokenizer=text_tokenizer,
            device="cpu",
        )
        cogview.tokenize(options)
    return home


def test_tokens_by_a_models_folder_are_in_its_case_and_size(home: Path) -> None:
    shards, written = TokenShards(home / "lower"), TokenShards(home / "written")
    tokenizer = TextTokenizer.from_file(home / "model" / "text.model")
    assert (shards.text_case, shards.grid, shards.size_pixels) == ("lower", (4, 4), 16)
    assert [tokenizer.decode(shards.pieces(index, 0).tolist()) for index in range(2)] == [
        "a red cat",
        "a dog",
    ]
    assert shards.words is not None
    assert shards.words.counts == {"a": 2, "cat": 1, "dog": 1, "red": 1}
    assert tokenizer.decode(written.pieces(0, 0).tolist()) == "A Red CAT"
    assert text_case_beside(home / "lower") == "lower"
    assert (written.text_case, text_case_beside(home / "written")) == ("as_written", "as_written")


def test_captions_with_capitals_are_refused_for_every_task(home: Path, tmp_path: Path) -> None:
    common = {"data": home / "written", "out": tmp_path / "run", "base": str(home / "model")}
    recipes_and_options = (
        (style.tiny(), StyleOptions(**common)),
        (captioning.tiny(), CaptioningOptions(**common)),
        (super_resolution.tiny(), SuperResolutionOptions(**common, low=home / "written")),
        (
            dataclasses.replace(text_to_image.tiny(), text_case="lower"),
            TextToImageOptions(data=home / "written", out=tmp_path / "run"),
        ),
    )
    for recipe, options in recipes_and_options:
        with pytest.raises(UsageError, match=r"written have capitals, such as .*--text-case lower"):
            train(recipe, options)
    assert not (tmp_path / "run").exists()


def test_capitals_are_found_without_a_list_of_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer.from_file(home / "model" / "text.model")
    written, lower = TokenShards(home / "written"), TokenShards(home / "lower")
    for shards in (written, lower):
        monkeypatch.setattr(shards, "words", None)
        monkeypatch.setattr(shards, "text_case", "as_written")
    refuse_capitals(lower, "lower", tokenizer)
    refuse_capitals(written, "usual", tokenizer)
    with pytest.raises(UsageError, match="--text-case lower"):
        refuse_capitals(written, "lower", tokenizer)


def test_a_model_trained_on_lower_case_reads_it_and_knows_its_words(home: Path) -> None:
    recipe = dataclasses.replace(text_to_image.tiny(), text_case="usual")
    model = _new_model(recipe, TokenShards(home / "lower"), home / "lower")
    assert model.text_case == "lower"
    assert (home / "lower" / WORDS_FILE).is_file()
    assert model.words is not None
    assert model.text_tokenizer is not None
    assert model.words.unknown("A RED zebra", model.text_tokenizer, model.text_case) == ["zebra"]
    assert KnownWords(counts={"cat": 1}).unknown("CAT", model.text_tokenizer, "as_written") == ["CAT"]


def style_texts(
    model: PretrainedModel, tokenizer: TextTokenizer, *texts: str, style: str = "Icons"
) -> list[str]:
    return _texts_of(style, texts or STYLE_TEXTS, model, tokenizer)


def test_a_styles_texts_are_those_that_the_base_reads(home: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    assert model.text_tokenizer is not None
    both = ["An image of Icons style", "一张Icons风格的图片"]
    assert style_texts(model, model.text_tokenizer) == both
    model = dataclasses.replace(model, text_case="lower")
    assert style_texts(model, model.text_tokenizer) == [text.lower() for text in both]
    russian = TextTokenizer.from_file(YOUTOKENTOME)
    assert style_texts(model, russian, "кошка {style}", style="Дом") == ["кошка дом"]
    with pytest.warns(UserWarning, match=r"cannot spell '一张.*', so that is left out: .*--style-texts"):
        assert style_texts(model, russian, "кошка {style}", STYLE_TEXTS[1], style="Дом") == ["кошка дом"]
    with pytest.warns(UserWarning, match="cannot spell '猫': give"):
        assert style_texts(model, russian, "{style}", style="猫") == ["猫"]
    options = StyleOptions(
        data=home / "lower", out=tmp_path / "run", base=str(home / "model"), style_texts=("{style}",)
    )
    with pytest.raises(UsageError, match="--style-texts needs --style"):
        train_style(style.tiny(), options)
