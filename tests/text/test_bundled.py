"""The bundled model tells the default data set in short captions, and its recipe makes words of words."""

import json
import random
from importlib import resources
from pathlib import Path

import pytest

from cogview.cli.main import main
from cogview.models.config import BUNDLED_FOLDER, read_config
from cogview.recipes import default_data
from cogview.recipes import text_tokenizer as recipe
from cogview.recipes.config import TextTokenizerRecipe
from cogview.text.config import TextTokenizerConfig
from cogview.text.known_words import KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.world import caption_contents
from cogview.world import captions as captions_module
from cogview.world.captions import captions
from cogview.world.config import DefaultDataConfig, Language
from cogview.world.objects import GROUNDS, SceneObject, known_codes, scene_objects
from cogview.world.scene_maker import make_scene


@pytest.fixture(scope="module")
def bundled() -> TextTokenizer:
    return TextTokenizer((resources.files("cogview") / "bundled" / "text.model").read_bytes())


def test_the_bundled_model_is_small(bundled: TextTokenizer) -> None:
    assert 4000 < bundled.num_pieces <= 8000
    assert len((resources.files("cogview") / "bundled" / "text.model").read_bytes()) < 400_000


def _things_of_the_model() -> list[SceneObject]:
    """Return the things that the bundled model has learnt; later rows of the table have other names."""
    config = default_data.bundled().data
    assert isinstance(config, DefaultDataConfig)
    return [scene_objects()[code] for code in known_codes(config.num_objects)]


def test_usual_names_of_things_and_colours_are_single_pieces(bundled: TextTokenizer) -> None:
    names = [name for thing in _things_of_the_model() for name in (thing.chinese[0], thing.measure)]
    names += [f"{name}色" for ground in GROUNDS.values() for name in ground.chinese]
    split = [name for name in names if len(bundled.words(name)) > 2]  # "▁" comes before every text
    assert len(split) <= 0.02 * len(names), split


def test_usual_english_names_are_a_piece_a_word(bundled: TextTokenizer) -> None:
    words = [word for thing in _things_of_the_model() for word in thing.singular[0].split()]
    split = [word for word in words if len(bundled.words(word)) > 1 and word.isalpha()]
    assert len(split) <= 0.02 * len(words), split


@pytest.fixture
def only_plain_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave captions in the forms, and things with the names, that the bundled model has learnt."""
    for share in ("FREE_SENTENCE_SHARE", "FREE_CONTENT_SHARE", "BESIDE_SHARE"):
        monkeypatch.setattr(captions_module, share, 0.0)
    monkeypatch.setattr(caption_contents, "USUAL_NAME_SHARE", 1.0)


@pytest.mark.usefixtures("only_plain_forms")
@pytest.mark.parametrize(("language", "most"), [("zh", 15), ("en", 13)])
@pytest.mark.slow
def test_plain_captions_are_short(bundled: TextTokenizer, language: str, most: int) -> None:
    config = DefaultDataConfig()
    rng = random.Random(0)
    texts = [
        text
        for index in range(300)
        for text in captions(make_scene(config, "train", index), rng, 1, language)  # type: ignore[arg-type]
    ]
    lengths = sorted(len(bundled.encode(text)) for text in texts)
    assert sum(lengths) / len(lengths) < most
    assert lengths[int(0.98 * len(lengths))] <= 24
    assert lengths[-1] <= 40


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.slow
def test_captions_of_the_larger_world_fit_40_pieces(bundled: TextTokenizer, language: Language) -> None:
    config = DefaultDataConfig(
        single_cells=7,
        groups_share=0.18,
        sizes_share=0.15,
        most_counted=6,
        sized_share=0.4,
        coloured_share=0.35,
    )
    rng = random.Random(0)
    lengths = [
        len(bundled.encode(text))
        for index in range(500)
        for text in captions(make_scene(config, "train", index), rng, 2, language)
    ]
    assert sum(length <= 40 for length in lengths) >= 0.99 * len(lengths)


@pytest.mark.parametrize(
    "text", ["蓝色背景上的一只猫和一个苹果", "藍色", "A cat!", "😀👩‍🚀", "龘𠮷", "مرحبا"]
)
def test_any_text_comes_back_from_the_bundled_model(bundled: TextTokenizer, text: str) -> None:
    assert bundled.decode(bundled.encode(text)) == text


@pytest.mark.slow
def test_the_recipe_is_repeatable_and_makes_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The labels of emojibase are replaced, since a test has no network.
    monkeypatch.setattr(
        recipe, "_icon_texts", lambda run: iter(["微笑的猫", "红心", "smiling cat", "red heart"])
    )
    run = TextTokenizerRecipe(tokenizer=TextTokenizerConfig(num_pieces=1500), num_scenes=100)
    first = recipe.train_bundled_text_tokenizer(run, tmp_path / "first.model")
    second = recipe.train_bundled_text_tokenizer(run, tmp_path / "second.model")
    assert first.fingerprint == second.fingerprint
    assert first.words("背景上的一只猫")[1:4] == ["背景", "上", "的"]


def test_the_bundled_run_asks_for_the_size_that_the_claim_states() -> None:
    assert recipe.bundled_text_tokenizer().tokenizer.num_pieces == 8000


def test_the_command_trains_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "_icon_texts", lambda run: iter(["微笑的猫", "smiling cat"]))
    words = ["train", "text-tokenizer", "--out", str(tmp_path / "text.model"), "--json"]
    words += ["--num-scenes", "100", "--tokenizer.num-pieces", "1500"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    made = TextTokenizer.from_file(tmp_path / "text.model")
    assert (told["num_pieces"], told["fingerprint"]) == (made.num_pieces, made.fingerprint)
    assert main(words) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.fixture(scope="module")
def known() -> KnownWords:
    found = KnownWords.in_folder(BUNDLED_FOLDER)
    assert found is not None
    assert found.num_left_out == 0
    return found


@pytest.mark.usefixtures("only_plain_forms")
@pytest.mark.slow
def test_the_model_says_nothing_of_texts_of_its_world_and_reads_them_as_they_are(
    bundled: TextTokenizer, known: KnownWords
) -> None:
    config = default_data.bundled().data
    assert isinstance(config, DefaultDataConfig)
    rng = random.Random(1)
    for index in range(400):
        scene = make_scene(config, "held-out-composition" if index % 2 else "train", 1_000_000 + index)
        for language in config.languages:
            for text in captions(scene, rng, 2, language):
                assert known.unknown(text, bundled, "usual") == []
                assert known.in_usual_case(text) == text
                assert known.unknown(text.upper(), bundled, "usual") == []


def test_the_model_names_what_is_out_of_its_world_and_reads_capitals(
    bundled: TextTokenizer, known: KnownWords
) -> None:
    assert read_config(BUNDLED_FOLDER)["text_case"] == "usual"
    assert known.unknown("a zebra and кот", bundled, "usual") == ["zebra", "кот"]
    assert known.unknown("蓝色背景上的一只斑马", bundled, "usual") == ["斑马"]
    assert known.unknown("A Red CAT, CHRISTMAS TREE", bundled, "usual") == []
    assert known.in_usual_case("A Red CAT") == "a red cat"
    assert known.in_usual_case("TWO CHRISTMAS TREES") == "two Christmas trees"
    assert known.in_usual_case("a t-shirt ON BLUE") == "a T-shirt on blue"


def test_the_image_tokenizer_knows_what_it_keeps() -> None:
    held_out = json.loads((BUNDLED_FOLDER / "image_tokenizer" / "config.json").read_text())["held_out"]
    assert 20 < held_out["least_db"] < held_out["median_db"] < 40
