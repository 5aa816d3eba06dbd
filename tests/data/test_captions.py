"""Captions are true of their scenes, many, and in their language."""

import random
import re
from collections import Counter
from typing import get_args

import pytest

from cogview.data.captions import ENGLISH_NUMBERS, STYLE_WORDS, captions
from cogview.data.config import DefaultDataConfig, Language, Style
from cogview.data.icons import IconWords
from cogview.data.scene_maker import make_scene
from cogview.data.scenes import Kind, Placement, Scene
from cogview.data.world import GROUNDS, scene_objects
from cogview.errors import UsageError

CAT, APPLE, UMBRELLA, HOURGLASS = "1f431", "1f34e", "2602", "231b"
LANGUAGES: tuple[Language, ...] = get_args(Language)
NUM = 400
WORDS = IconWords(labels={"zh": "法国", "en": "France"}, tags={"zh": ("旗", "红"), "en": ("flag", "red")})


def scene_of(*codes: str, kind: str = "group", ground: str = "blue", style: Style = "noto") -> Scene:
    columns = (0, 9, 0, 9)
    rows = (4, 4) if len(codes) <= 2 else (0, 0, 9, 9)
    placements = tuple(
        Placement(code=code, column=column, row=row, size=7)
        for code, column, row in zip(codes, columns, rows, strict=False)
    )
    return Scene(kind=kind, ground=ground, style=style, placements=placements)  # type: ignore[arg-type]


def many(scene: Scene, language: Language) -> list[str]:
    return captions(scene, random.Random(0), NUM, language, WORDS)


SAMPLE = [make_scene(DefaultDataConfig(), "train", index) for index in range(150)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_one_picture_differ(language: Language) -> None:
    for scene in SAMPLE:
        texts = captions(scene, random.Random(1), 6, language)
        assert len(texts) == len(set(texts)) == 6


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_picture_is_told_in_hundreds_of_ways(language: Language) -> None:
    assert len(many(scene_of(CAT, APPLE, kind="relation"), language)) > 300


def test_captions_are_a_function_of_the_generator() -> None:
    scene = scene_of(CAT, APPLE)
    assert captions(scene, random.Random(3), 5, "zh") == captions(scene, random.Random(3), 5, "zh")
    assert captions(scene, random.Random(3), 5, "zh") != captions(scene, random.Random(4), 5, "zh")


def test_chinese_is_chinese_and_english_english() -> None:
    for scene in SAMPLE:
        for text in captions(scene, random.Random(2), 4, "zh"):
            assert re.fullmatch(
                r"[\u4e00-\u9fff，。：、（）]+", text.replace("3D", "").replace("T恤", "恤")
            ), text
        for text in captions(scene, random.Random(2), 4, "en"):
            assert re.fullmatch(r"[A-Za-z0-9 ,.:\-]+", text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_object_is_named(language: Language) -> None:
    for scene in SAMPLE:
        for text in captions(scene, random.Random(3), 4, language):
            for code in {place.code for place in scene.placements}:
                thing = scene_objects()[code]
                names = thing.chinese if language == "zh" else thing.singular + thing.plural
                assert any(name in text for name in names), (text, names)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_other_ground_is_named_and_mostly_the_right_one(language: Language) -> None:
    named, rng = 0, random.Random(4)
    for scene in SAMPLE:
        for text in captions(scene, rng, 4, language):
            for key, ground in GROUNDS.items():
                if language == "zh":
                    names = "|".join(ground.chinese)
                    found = bool(
                        re.search(rf"(?<!粉)({names})(色的?背景|色底|底|背景)|背景是({names})色", text)
                    )
                else:
                    colours = "|".join(ground.english)
                    found = bool(re.search(rf"\b({colours}) (back|ground|picture)|on ({colours})\b", text))
                assert not found or key == scene.ground, text
                named += found
    assert 0.88 < named / (4 * len(SAMPLE)) < 0.97


# Relations: what is left of what, read back from the words

ZH_FIRST = r"(一只)?猫咪?"
ZH_SECOND = r"一?个?苹果"
TRUE_OF_CAT_LEFT_OF_APPLE = {
    "zh": [
        rf"({ZH_FIRST})在({ZH_SECOND})的?左[边侧面]",
        rf"({ZH_SECOND})的左[边侧面][是有]({ZH_FIRST})",
        rf"({ZH_SECOND})在({ZH_FIRST})的?右[边侧面]",
        rf"({ZH_FIRST})的右[边侧面][是有]({ZH_SECOND})",
        rf"左[边侧面][是有]({ZH_FIRST})，右[边侧面][是有]({ZH_SECOND})",
        rf"右[边侧面][是有]({ZH_SECOND})，左[边侧面][是有]({ZH_FIRST})",
        rf"({ZH_FIRST})在左[边侧面]，({ZH_SECOND})在右[边侧面]",
        rf"({ZH_SECOND})在右[边侧面]，({ZH_FIRST})在左[边侧面]",
    ],
    "en": [
        r"a (cat|kitten) (is )?(to the left of|left of|on the left of) (an|a red) apple",
        r"(an|a red) apple (is )?(to the right of|right of|on the right of) a (cat|kitten)",
        r"(to the left of|left of|on the left of) (an|a red) apple is a (cat|kitten)",
        r"(to the right of|right of|on the right of) a (cat|kitten) is (an|a red) apple",
        r"a (cat|kitten) on the left and (an|a red) apple on the right",
        r"(an|a red) apple on the right and a (cat|kitten) on the left",
        r"on the left (there )?is a (cat|kitten), on the right (is )?(an|a red) apple",
        r"on the right (there )?is (an|a red) apple, on the left (is )?a (cat|kitten)",
    ],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_relations_are_told_truly_from_both_sides_and_in_all_forms(language: Language) -> None:
    forms = Counter[str]()
    for text in many(scene_of(CAT, APPLE, kind="relation"), language):
        if re.search(r"左|右|\bleft\b|\bright\b", text):
            told = [
                form for form in TRUE_OF_CAT_LEFT_OF_APPLE[language] if re.search(form, text, re.IGNORECASE)
            ]
            assert told, text
            forms.update(told)
    assert forms.keys() == set(TRUE_OF_CAT_LEFT_OF_APPLE[language])


def test_above_and_below_are_not_mixed_up() -> None:
    upper, lower = (
        Placement(code=CAT, column=4, row=0, size=7),
        Placement(code=APPLE, column=4, row=9, size=7),
    )
    scene = Scene(kind="relation", ground="white", style="noto", placements=(lower, upper))
    for text in many(scene, "en"):
        assert not re.search(r"apple (is )?(above|over|at the top)", text), text
        assert not re.search(r"(cat|kitten) (is )?(below|under|beneath|at the bottom)", text), text
        assert not re.search(
            r"at the top (there )?is (an|a red) apple|at the bottom (there )?is a (cat|kitten)", text
        ), text
    for text in many(scene, "zh"):
        assert not re.search(
            r"红?苹果在(一只)?小?猫的?上|红?苹果在上|猫在(一个)?红?苹果的?下|猫在下", text
        ), text
        assert not re.search(r"猫的上[面方边]|红?苹果的下[面方边]", text), text
        assert not re.search(
            r"(?<!的)上[面方边][是有](一个)?红?苹果|(?<!的)下[面方边][是有](一只)?小?猫", text
        ), text


@pytest.mark.parametrize("kind", ["group", "relation"])
def test_a_list_is_told_in_the_order_of_reading(kind: Kind) -> None:
    places = [
        Placement(code=APPLE, column=9, row=9, size=7),
        Placement(code=CAT, column=9, row=0, size=7),
        Placement(code=UMBRELLA, column=0, row=0, size=7),
    ][: 2 if kind == "relation" else 3]
    scene = Scene(kind=kind, ground="white", style="noto", placements=tuple(places))
    english = [
        text
        for text in many(scene, "en")
        if not re.search(r"\b(left|right|above|over|below|under|beneath)\b|at the top", text, re.I)
    ]
    chinese = [text for text in many(scene, "zh") if not re.search(r"[左右上下][面方边侧]", text)]
    assert english
    assert chinese
    umbrella = r"umbrella\b.*" if kind == "group" else ""
    assert all(re.search(umbrella + r"(cat|kitten)\b.*apple", text, re.I) for text in english)
    umbrella = r"伞.*" if kind == "group" else ""
    assert all(re.search(umbrella + r"猫.*苹果", text) for text in chinese)


def test_a_relation_is_mostly_told_from_the_thing_that_comes_first_in_the_order_of_reading() -> None:
    texts = captions(scene_of(APPLE, CAT, kind="relation"), random.Random(0), NUM, "en", WORDS)
    first = sum(bool(re.search(r"\bleft of\b", text)) for text in texts)
    second = sum(bool(re.search(r"\bright of\b", text)) for text in texts)
    assert first + second > 50
    assert 0.65 < first / (first + second) < 0.85


def test_the_readme_s_caption_is_of_a_kind_that_occurs() -> None:
    assert "蓝色背景上的一只猫和一个苹果" in many(scene_of(CAT, APPLE), "zh")
    assert "a cat and an apple on a blue background" in many(scene_of(CAT, APPLE), "en")


# Counts and grammar


@pytest.mark.parametrize(("number", "word"), [(2, "两"), (3, "三"), (4, "四")])
def test_counts_are_named_with_measure_words(number: int, word: str) -> None:
    scene = scene_of(*[CAT] * number, kind="count")
    assert all(re.search(f"{word}只小?猫", text) for text in many(scene, "zh"))
    assert all(
        re.search(f"{ENGLISH_NUMBERS[number]} (cats|kittens)", text, re.I) for text in many(scene, "en")
    )


def test_english_articles_fit() -> None:
    for scene in [*SAMPLE, scene_of(UMBRELLA, HOURGLASS, ground="orange")]:
        for text in captions(scene, random.Random(5), 20, "en"):
            assert not re.search(r"\ba ([aeiou]|hourglass)", text, re.IGNORECASE), text
            assert not re.search(r"\ban (?![aeiou]|hourglass)", text, re.IGNORECASE), text


@pytest.mark.parametrize("style", get_args(Style))
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_style_is_named_now_and_then_and_never_wrongly(style: Style, language: Language) -> None:
    texts = many(scene_of(CAT, APPLE, style=style), language)
    word = "风格" if language == "zh" else "style"
    named = [text for text in texts if word in text]
    assert 0.3 < len(named) / len(texts) < 0.9
    assert all(any(name.lower() in text.lower() for name in STYLE_WORDS[style][language]) for text in named)


def test_style_words_belong_to_one_style() -> None:
    for language in LANGUAGES:
        words = [word for of_style in STYLE_WORDS.values() for word in of_style[language]]
        assert len(words) == len(set(words))


# Icons of the whole sets


@pytest.mark.parametrize("language", LANGUAGES)
def test_icons_are_told_by_label_and_tags(language: Language) -> None:
    texts = many(scene_of("1f1eb-1f1f7", kind="icon"), language)
    assert all(WORDS.labels[language].lower() in text.lower() for text in texts)
    assert any(WORDS.tags[language][0] in text for text in texts)
    assert any(WORDS.tags[language][0] not in text for text in texts)


def test_an_icon_without_words_is_refused() -> None:
    with pytest.raises(UsageError, match="icon 1f1eb is not of the table"):
        captions(scene_of("1f1eb", kind="icon"), random.Random(0), 1, "en")


def test_fewer_captions_are_given_when_there_are_no_more() -> None:
    words = IconWords(labels={"zh": "某", "en": "x"}, tags={"zh": (), "en": ()})
    texts = captions(scene_of("1f1eb", kind="icon"), random.Random(0), 1_000, "en", words)
    assert 10 < len(texts) < 1_000
    assert len(texts) == len(set(texts))
