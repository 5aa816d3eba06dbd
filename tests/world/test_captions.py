import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest

from cogview.errors import UsageError
from cogview.recipes import default_data
from cogview.world import captions as captions_module
from cogview.world import (
    chinese_captions,
    chinese_forms,
    chinese_requests,
    english_captions,
    english_forms,
    english_requests,
)
from cogview.world.caption_contents import CaptionWriter, Manner, NounPhrase
from cogview.world.caption_words import BESIDE_WORDS, ENGLISH_SIDES, RELATION_WORDS, SIZE_WORDS, STYLE_WORDS
from cogview.world.captions import captions
from cogview.world.colours import COLOURS
from cogview.world.config import DefaultDataConfig, Language, Style
from cogview.world.english_captions import english_article
from cogview.world.icons import IconWords
from cogview.world.objects import GROUNDS, scene_objects
from cogview.world.scene_maker import make_scene
from cogview.world.scenes import OPPOSITES, Kind, Placement, Relation, Scene

CAT, DOG, APPLE, UMBRELLA, HOURGLASS = "1f431", "1f436", "1f34e", "2602", "231b"
HOUSE, TREE = "1f3e0", "1f333"
TELLS = {4: "small", 9: "big"}
WRITERS: dict[Language, CaptionWriter] = {"zh": chinese_captions, "en": english_captions}
RELATIONS: tuple[Relation, ...] = get_args(Relation)
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
_world = default_data.world().data
assert isinstance(_world, DefaultDataConfig)
WORLD = replace(_world, num_objects=200)
LARGER = [make_scene(WORLD, "train", index) for index in range(250)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
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


@pytest.mark.slow
def test_chinese_is_chinese_and_english_english() -> None:
    for scene in SAMPLE + LARGER:
        for text in captions(scene, random.Random(2), 4, "zh"):
            assert re.fullmatch(
                r"[\u4e00-\u9fff，。：、（）？]+", text.replace("3D", "").replace("T恤", "恤")
            ), text
        for text in captions(scene, random.Random(2), 4, "en"):
            assert re.fullmatch(r"[A-Za-z0-9 ,.:?'\-]+", text), text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_every_object_is_named(language: Language) -> None:
    for scene in SAMPLE + LARGER:
        for text in captions(scene, random.Random(3), 4, language):
            for code in {place.code for place in scene.placements}:
                thing = scene_objects()[code]
                names = thing.chinese if language == "zh" else thing.singular + thing.plural
                assert any(name in text for name in names), (text, names)


def without_names(text: str, scene: Scene) -> str:
    """Return a caption without the names of its things, which may hold colours and sizes: red apple, 大象."""
    things = [scene_objects()[place.code] for place in scene.placements]
    names = {name for thing in things for name in (*thing.singular, *thing.plural, *thing.chinese)}
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"\b{name}\b" if name.isascii() else name, "", text, flags=re.IGNORECASE)
    return text


def colours_in(text: str, language: Language) -> list[str]:
    """Return the keys of the colours that a text names, in order."""
    names = {
        name: key
        for key, ground in GROUNDS.items()
        for name in (ground.chinese if language == "zh" else ground.english)
    }
    pattern = "|".join(sorted(names, key=len, reverse=True))
    pattern = pattern if language == "zh" else rf"\b({pattern})\b"
    return [names[found[0].lower()] for found in re.finditer(pattern, text, re.IGNORECASE)]


def sizes_in(text: str, language: Language) -> list[str]:
    """Return the sizes that a text without names tells, in order."""
    names = {word: size for size, words in SIZE_WORDS.items() for word in words[language]}
    pattern = "|".join(sorted(names, key=len, reverse=True))
    pattern = pattern if language == "zh" else rf"\b({pattern})\b"
    return [names[found[0].lower()] for found in re.finditer(pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_no_other_ground_is_named_and_mostly_the_right_one(language: Language) -> None:
    num_named, rng = 0, random.Random(4)
    for scene in SAMPLE:
        for text in captions(scene, rng, 4, language):
            found = colours_in(without_names(text, scene), language)
            assert found in ([], [scene.ground]), text
            num_named += len(found)
    assert 0.88 < num_named / (4 * len(SAMPLE)) < 0.97


# Relations: what lies where, read back from the words


def lies(text: str, language: Language) -> Relation | None:
    """Return where XX lies to YY by a text's words; None if it doesn't say."""
    found = _lies_in_chinese(text) if language == "zh" else _lies_in_english(text)
    if found is None:
        return None
    subject, relation = found
    return relation if subject == "XX" else OPPOSITES[relation]


def _lies_in_english(text: str) -> tuple[str, Relation] | None:
    other = {"XX": "YY", "YY": "XX"}
    for relation in RELATIONS:
        for word in set(RELATION_WORDS[relation]["en"]) - {ENGLISH_SIDES[relation]}:
            if found := re.search(rf"\b{word} (XX|YY|it|them)s?\b", text, re.IGNORECASE):
                is_first = text.find("XX") < text.find("YY")
                return other[found[1] if found[1] in other else "XX" if is_first else "YY"], relation
    sides = {side: relation for relation, side in ENGLISH_SIDES.items()}
    found = re.search(rf"({'|'.join(sides)})(?! of)", text, re.IGNORECASE)
    if found is None:
        return None
    before, after = (re.findall("XX|YY", part) for part in (text[: found.start()], text[found.end() :]))
    return before[-1] if before else after[0], sides[found[0].lower()]


def _lies_in_chinese(text: str) -> tuple[str, Relation] | None:
    for pattern in (
        r"(XX|YY)的?WORD[是有画放]着?(?P<subject>XX|YY)",
        r"在(XX|YY)的?WORD，?有(?P<subject>XX|YY)",
        r"(?P<subject>XX|YY)[位画放摆]?[在于](XX|YY)的?WORD",
        r"(?<![XY的])WORD的?[是有画放]?着?(?P<subject>XX|YY)",
        r"(?P<subject>XX|YY)[画放]?在WORD",
    ):
        for relation in RELATIONS:
            words = "|".join(RELATION_WORDS[relation]["zh"])
            if found := re.search(pattern.replace("WORD", f"({words})"), text):
                return found["subject"], relation
    return None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("manner", ["plain", "free"])
@pytest.mark.slow
def test_each_form_of_a_relation_is_true(relation: Relation, language: Language, manner: Manner) -> None:
    rng, visible = random.Random(0), set()
    for number in range(400):
        first, second = (
            NounPhrase(text="XX", number=number % 2 + 1),
            NounPhrase(text="YY", number=number // 2 % 2 + 1),
        )
        content = WRITERS[language].relation(rng, first, relation, second, manner)
        assert lies(content.text, language) == relation, content.text
        visible.add(content.text)
    assert len(visible) > 15


def blanked(text: str, language: Language) -> str:
    """Return a caption of a cat and a dog with XX and YY for the two, whatever their number, colour and size."""
    for code, token in ((CAT, "XX"), (DOG, "YY")):
        thing = scene_objects()[code]
        names = sorted((*thing.singular, *thing.plural, *thing.chinese), key=len, reverse=True)
        text = re.sub(rf"([一两三]只)?({'|'.join(names)})s?", token, text)
    return re.sub(r"\b(an?|two|three) (?=XX|YY)", "", text, flags=re.IGNORECASE)


def two_groups(number: int, other: int, *, is_column: bool = False, is_turned: bool = False) -> Scene:
    """Return cats above dogs, or to the left of them in a column of each; or the dogs before the cats."""
    things = [(CAT, number), (DOG, other)]
    if is_turned:
        things.reverse()
    placements = []
    for line, (code, count) in enumerate(things):
        for index in range(count):
            across, along = 3 + 5 * line, (16 - 5 * count) // 2 + 5 * index
            column, row = (across, along) if is_column else (along, across)
            placements.append(Placement(code=code, column=column, row=row, size=4))
    return Scene(kind="groups", ground="blue", style="noto", placements=tuple(placements))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("scene", "relation"),
    [
        (scene_of(CAT, DOG, kind="relation"), "left"),
        (scene_of(DOG, CAT, kind="relation"), "right"),
        (two_groups(2, 1), "above"),
        (two_groups(1, 3, is_turned=True), "below"),
        (two_groups(3, 2, is_column=True), "left"),
        (two_groups(1, 2, is_column=True, is_turned=True), "right"),
    ],
)
@pytest.mark.slow
def test_captions_tell_relations_truly_and_mostly_from_what_comes_first(
    scene: Scene, relation: Relation, language: Language
) -> None:
    told: Counter[str] = Counter()
    for text in many(scene, language):
        blank = blanked(text, language)
        found = lies(blank, language)
        assert found in (None, relation), text
        in_order = (blank.index("XX") < blank.index("YY")) == (relation in ("left", "above"))
        if found is None:  # lists, and what is side by side, are in the order of reading
            assert in_order, text
        told["none" if found is None else "in order" if in_order else "turned"] += 1
    assert told["none"] < 0.55 * told.total()
    # Some forms name what comes second first, and the other way.
    assert told["in order"] > 1.1 * told["turned"] > 0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_what_is_side_by_side_is_told_so_now_and_then_and_what_is_not_never(language: Language) -> None:
    words = "|".join(BESIDE_WORDS[language])
    for scene, least in ((two_groups(2, 2, is_column=True), 40), (scene_of(CAT, DOG, kind="relation"), 10)):
        assert sum(bool(re.search(words, text)) for text in many(scene, language)) > least
    for scene in (two_groups(2, 1), scene_of(CAT, DOG)):
        assert not any(re.search(words, text) for text in many(scene, language))


@pytest.mark.parametrize("kind", ["group", "relation"])
@pytest.mark.slow
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


def test_the_readme_s_caption_is_of_a_kind_that_occurs() -> None:
    assert "蓝色背景上的一只猫和一个苹果" in many(scene_of(CAT, APPLE), "zh")
    assert "a cat and an apple on a blue background" in many(scene_of(CAT, APPLE), "en")


# Numbers, colours and sizes


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6])
@pytest.mark.slow
def test_counts_are_named_with_measure_words(number: int) -> None:
    scene = Scene(
        kind="count",
        ground="blue",
        style="noto",
        placements=tuple(
            Placement(code=CAT, column=5 * (index % 3), row=5 * (index // 3), size=4)
            for index in range(number)
        ),
    )
    assert all(re.search(f"{chinese_captions.NUMBERS[number]}只猫咪?", text) for text in many(scene, "zh"))
    word = english_captions.NUMBERS[number]
    assert all(re.search(rf"\b{word} (cats|kittens)", text, re.I) for text in many(scene, "en"))


def one_thing(kind: Kind, colour: str | None, size: int) -> Scene:
    """Return a scene of a kind with a tree of a colour and size, alone, counted or beside untold houses."""
    tree = Placement(code=TREE, column=1, row=2, size=size, colour=colour)
    others: dict[str, tuple[Placement, ...]] = {
        "count": (replace(tree, row=2 + size),),
        "groups": (replace(tree, row=2 + size), Placement(code=HOUSE, column=9, row=2, size=size)),
        "relation": (Placement(code=HOUSE, column=9, row=2, size=size),),
        "sizes": (Placement(code=HOUSE, column=10, row=2, size=7 if size != 7 else 4),),
        "group": (
            Placement(code=HOUSE, column=9, row=9, size=7),
            Placement(code=CAT, column=1, row=9, size=7),
        ),
    }
    return Scene(kind=kind, ground="gray", style="noto", placements=(tree, *others.get(kind, ())))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["single", "count", "relation", "group", "groups", "sizes"])
@pytest.mark.parametrize("colour", [None, "orange", "pink", "green"])
@pytest.mark.parametrize("size", [4, 7, 9])
@pytest.mark.slow
def test_colours_are_always_told_and_sizes_where_they_are_meant(
    kind: Kind, colour: str | None, size: int, language: Language
) -> None:
    scene = one_thing(kind, colour, size)
    wanted = [TELLS[each.size] for each in scene.placements if each.size in TELLS]
    wanted = wanted if kind in ("single", "sizes") else []
    for text in captions(scene, random.Random(0), 40, language):
        rest = without_names(text, scene)
        assert sorted(sizes_in(rest, language)) == sorted(wanted), text
        colours = [found for found in colours_in(rest, language) if found != "gray"]
        assert colours == ([] if colour is None else [colour]), text
        assert text.count("{") == text.count("  ") == text.count("的的") == 0, text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_all_colours_and_no_others_are_told_of_the_larger_world(language: Language) -> None:
    for scene in LARGER:
        colours = {place.colour for place in scene.placements if place.colour is not None}
        for text in captions(scene, random.Random(6), 3, language):
            found = set(colours_in(without_names(text, scene), language))
            assert colours <= found <= colours | {scene.ground}, text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_names_that_sound_like_a_size_or_a_colour_give_way(language: Language) -> None:
    small_cat = Scene(
        kind="sizes",
        ground="blue",
        style="noto",
        placements=(
            Placement(code=CAT, column=0, row=8, size=4),
            Placement(code=DOG, column=4, row=5, size=7),
        ),
    )
    assert not any("小狗" in text for text in many(small_cat, language))
    apple = Placement(code=APPLE, column=3, row=3, size=7, colour="green")
    green = Scene(kind="single", ground="blue", style="noto", placements=(apple,))
    assert not any(re.search("red|红", text) for text in many(green, language))


def test_a_big_house_is_no_name() -> None:
    texts = many(one_thing("single", None, 9), "zh")
    assert not any("大树" in text for text in texts)  # a name of every tree
    house = Scene(
        kind="single",
        ground="red",
        style="noto",
        placements=(Placement(code=HOUSE, column=3, row=3, size=9),),
    )
    assert any("一座大房子" in text for text in many(house, "zh"))
    assert not any("小房子" in text for text in many(house, "zh"))


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"colour": "red"}, {"colour": "blue"}, ("a red cat and a blue cat", "a red cat and a blue one")),
        ({"size": 9}, {"size": 4}, ("a big cat and a small cat", "a big cat and a small one")),
    ],
)
@pytest.mark.slow
def test_the_same_thing_twice_is_told_apart(
    first: dict[str, Any], second: dict[str, Any], told: tuple[str, str]
) -> None:
    places = (
        Placement(**{"code": CAT, "column": 0, "row": 1, "size": 7, **first}),
        Placement(**{"code": CAT, "column": 9, "row": 6, "size": 7, **second}),
    )
    kind: Kind = "relation" if "colour" in first else "sizes"
    scene = Scene(kind=kind, ground="gray", style="noto", placements=places)
    texts = captions(scene, random.Random(0), 800, "en")
    for text in told:
        assert any(text in each.lower() for each in texts)
    for text in texts:
        assert len(re.findall(r"cat\b|kitten\b|\bone\b", text, re.IGNORECASE)) == 2
        assert bool(re.search("cat", text, re.I)) != bool(re.search("kitten", text, re.I)), text
    for text in captions(scene, random.Random(0), 300, "zh"):
        assert len(re.findall("猫", text)) in (0, 2), text


# Forms and grammar

TABLES = {
    language: {
        form
        for module in modules
        for name, table in vars(module).items()
        if name.isupper()
        for form in table
        if "{" in form
    }
    for language, modules in {
        "zh": (chinese_forms, chinese_requests),
        "en": (english_forms, english_requests),
    }.items()
}


def test_there_are_several_hundred_forms() -> None:
    assert {language: len(forms) > 200 for language, forms in TABLES.items()} == {"zh": True, "en": True}


@pytest.mark.parametrize("language", LANGUAGES)
def test_forms_tell_nothing_by_themselves(language: Language) -> None:
    words = [
        word for table in (SIZE_WORDS, RELATION_WORDS) for each in table.values() for word in each[language]
    ]
    words += [word for each in STYLE_WORDS.values() for word in each[language]]
    words += [word for ground in GROUNDS.values() for word in (*ground.english, *ground.chinese)]
    words += (
        english_captions.NUMBERS.values() if language == "en" else list(chinese_captions.NUMBERS.values())[1:]
    )
    words += ["left", "right", "over", "under", "top", "bottom"]
    for form in TABLES[language]:
        plain = re.sub(r"\{\w+\}", "_", form)
        for word in words:
            found = re.search(rf"\b{word}\b", plain, re.I) if word.isascii() else word in plain
            assert not found, (form, word)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_captions_are_polite_once_and_ask_at_their_end(language: Language) -> None:
    for scene in LARGER:
        for text in captions(scene, random.Random(8), 8, language):
            assert len(re.findall("please|thanks|谢谢|麻烦", text, re.IGNORECASE)) <= 1, text
            assert "?" not in text[:-1], text
            assert "？" not in text[:-1], text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
def test_plain_forms_are_about_half_of_all(language: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(CAT, kind="single", ground="white")
    monkeypatch.setattr(captions_module, "STYLE_SHARE", 0.0)
    monkeypatch.setattr(captions_module, "GROUND_SHARE", 1.0)
    drawn = [captions(scene, random.Random(number), 1, language)[0] for number in range(400)]
    monkeypatch.setattr(captions_module, "FREE_SENTENCE_SHARE", 0.0)
    plain = set(captions(scene, random.Random(0), 250, language))
    assert 0.45 < sum(text in plain for text in drawn) / len(drawn) < 0.75
    assert len(set(drawn) - plain) > 80


@pytest.mark.parametrize("numbers", [(1, 1), (1, 3), (3, 1), (2, 3)])
@pytest.mark.slow
def test_english_verbs_agree(numbers: tuple[int, int]) -> None:
    rng = random.Random(0)
    first, second = (
        NounPhrase(text=text, number=number) for text, number in zip(("XX", "YY"), numbers, strict=True)
    )
    contents = [
        english_captions.relation(rng, first, relation, second, manner)
        for relation in RELATIONS
        for manner in ("plain", "free")
        for _ in range(100)
    ]
    contents += [english_captions.beside(rng, first, second) for _ in range(100)]
    contents += [english_captions.list_things(rng, [first, second], "free") for _ in range(100)]
    by_name = {"XX": numbers[0], "YY": numbers[1]}
    for content in contents:
        text = english_captions.sentence(rng, content, "blue", None, "free")
        if max(numbers) == 1 and " and " not in content.text:
            assert not re.search(r"\b(are|have)\b", content.text), text
        if min(numbers) > 1:
            assert not re.search(r"\b(is|has|it)\b", content.text), text
        if content.form == "clause" and (found := re.match(r"(XX|YY) (is|has|are|have)\b", content.text)):
            assert (found[2] in ("is", "has")) == (by_name[found[1]] == 1), text
        for verb, name in re.findall(r"(?:there|here) (is|are) (XX|YY)", text, re.IGNORECASE):
            assert (verb == "is") == (by_name[name] == 1), text


@pytest.mark.parametrize(
    ("name", "article"),
    [
        *(
            (name, "an")
            for name in ("apple", "owl", "hourglass", "umbrella", "orange car", "X-ray", "8 ball", "onion")
        ),
        *(
            (name, "a")
            for name in ("unicorn", "ukulele", "UFO", "uniform", "big owl", "one-piece", "yo-yo", "3D")
        ),
        *((name, "an") for name in ("unidentified object", "urn", "inked", "honest judge", "old uniform")),
        *((name, "a") for name in ("T-shirt", "house", "purple ukulele", "utensil", "white hourglass")),
    ],
)
def test_the_article_is_as_the_word_is_spoken(name: str, article: str) -> None:
    assert english_article(name) == article
    assert english_article(name.capitalize()) == article


@pytest.mark.slow
def test_english_articles_fit() -> None:
    for scene in [*SAMPLE, *LARGER, scene_of(UMBRELLA, HOURGLASS, ground="orange")]:
        for text in captions(scene, random.Random(5), 4, "en"):
            for article, word in re.findall(r"\b(an?) (\w+)", text, re.IGNORECASE):
                assert english_article(word) == article.lower(), text


@pytest.mark.slow
def test_english_nouns_agree_with_their_numbers() -> None:
    numbers = "|".join(english_captions.NUMBERS.values())
    adjectives = "|".join([*COLOURS, *(word for words in SIZE_WORDS.values() for word in words["en"])])
    for scene in LARGER:
        things = [scene_objects()[place.code] for place in scene.placements]
        plurals = tuple(name for thing in things for name in thing.plural)
        for text in captions(scene, random.Random(7), 4, "en"):
            for found in re.finditer(rf"\b({numbers}) (({adjectives}) )*", text, re.IGNORECASE):
                assert text[found.end() :].startswith(plurals), text
            if scene.kind not in ("count", "groups"):
                assert not re.search(rf"\b({numbers}) ", text, re.IGNORECASE), text


@pytest.mark.parametrize("style", get_args(Style))
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.slow
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
    with pytest.raises(UsageError, match="1f1eb"):
        captions(scene_of("1f1eb", kind="icon"), random.Random(0), 1, "en")


@pytest.mark.slow
def test_fewer_captions_are_given_when_there_are_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions_module, "FREE_SENTENCE_SHARE", 0.0)
    monkeypatch.setattr(captions_module, "STYLE_SHARE", 0.0)
    words = IconWords(labels={"zh": "某", "en": "x"}, tags={"zh": (), "en": ()})
    texts = captions(scene_of("1f1eb", kind="icon"), random.Random(0), 400, "en", words)
    assert 10 < len(texts) < 400
    assert len(texts) == len(set(texts))
