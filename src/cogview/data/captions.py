"""What is said of a scene, in Chinese and in English.

A caption is drawn from independent choices: which of the object's names, how the ground is spoken of, from which side a
relation is told, whether the style is named, what words lead in. So the same picture is told in hundreds of ways, and a
model has to learn the words and not the sentences.
"""

import random
from collections.abc import Sequence

from cogview.data.config import Language, Style
from cogview.data.icons import IconWords
from cogview.data.scenes import GROUNDS, Relation, Scene, SceneObject, relation_of, scene_objects
from cogview.errors import UsageError

CHINESE_NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}
ENGLISH_NUMBERS = {2: "two", 3: "three", 4: "four"}
MAX_ATTEMPTS = 100

USUAL_NAME_SHARE = 0.75
GROUND_SHARE = 0.93
STYLE_SHARE = 0.4
LEAD_IN_SHARE = 0.25
RELATION_TOLD_SHARE = 0.85

# Each style by what it looks like, so that a user need not know whose art it is.
STYLE_WORDS: dict[Style, dict[Language, tuple[str, ...]]] = {
    "noto": {"zh": ("卡通", "卡通画"), "en": ("cartoon",)},
    "twemoji": {"zh": ("贴纸", "简洁"), "en": ("sticker", "simple")},
    "fluent": {"zh": ("渐变", "柔和"), "en": ("gradient", "soft")},
    "fluent-flat": {"zh": ("扁平", "平面"), "en": ("flat", "flat design")},
    "fluent-3d": {"zh": ("立体", "3D"), "en": ("3D", "3D rendered")},
    "openmoji": {"zh": ("线描", "描边"), "en": ("outlined", "line art")},
}

CHINESE_RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left": ("左边", "左侧", "左面"),
    "right": ("右边", "右侧", "右面"),
    "above": ("上面", "上方", "上边"),
    "below": ("下面", "下方", "下边"),
}
ENGLISH_RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
ENGLISH_SIDES: dict[Relation, str] = {
    "left": "on the left",
    "right": "on the right",
    "above": "at the top",
    "below": "at the bottom",
}
OPPOSITES: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}


def captions(
    scene: Scene,
    rng: random.Random,
    num: int,
    language: Language,
    icon_words: IconWords | None = None,
) -> list[str]:
    """Return different captions of one scene.

    Args:
        scene: what the picture shows.
        rng: decides all choices.
        num: how many at most; fewer if the scene cannot be told in so many ways.
        language: of all of them.
        icon_words: names of the icon of a scene of kind `icon`, which needn't be in the table of objects.

    Raises:
        UsageError: the scene is a single icon and its words are missing.
    """
    found: dict[str, None] = {}
    for _ in range(MAX_ATTEMPTS):
        if len(found) >= num:
            break
        found[_one_caption(scene, rng, language, icon_words)] = None
    return list(found)


def _one_caption(scene: Scene, rng: random.Random, language: Language, icon_words: IconWords | None) -> str:
    ground = scene.ground if rng.random() < GROUND_SHARE else None
    style = rng.choice(STYLE_WORDS[scene.style][language]) if rng.random() < STYLE_SHARE else None
    lead_in = rng.random() < LEAD_IN_SHARE
    phrase, is_clause = _content(scene, rng, language, icon_words)
    if language == "zh":
        return _chinese_sentence(rng, phrase, is_clause, ground, style, lead_in)
    return _english_sentence(rng, phrase, is_clause, ground, style, lead_in)


def _content(
    scene: Scene, rng: random.Random, language: Language, icon_words: IconWords | None
) -> tuple[str, bool]:
    """Return what the scene shows and whether that is a clause rather than a list of things."""
    if scene.kind == "icon":
        if icon_words is None:
            raise UsageError(
                f"the icon {scene.placements[0].code} has no words; pass icon_words to tell of it"
            )
        return _icon_phrase(icon_words, rng, language), False
    table = scene_objects()
    things = [table[placement.code] for placement in scene.placements]
    name = _chinese_things if language == "zh" else _english_things
    if scene.kind in ("single", "count"):
        return name(things[0], rng, len(things)), False
    names = [name(thing, rng, 1) for thing in things]
    if scene.kind == "relation" and rng.random() < RELATION_TOLD_SHARE:
        relation = relation_of(scene.placements[0], scene.placements[1])[0]
        if rng.random() < 0.5:
            names.reverse()
            relation = OPPOSITES[relation]
        tell = _chinese_relation if language == "zh" else _english_relation
        return tell(names[0], relation, names[1], rng)
    rng.shuffle(names)
    return (_chinese_list(names, rng) if language == "zh" else _english_list(names)), False


def _icon_phrase(words: IconWords, rng: random.Random, language: Language) -> str:
    label, tags = words.labels[language], words.tags[language]
    comma = "，" if language == "zh" else ", "
    if not tags or rng.random() < 0.4:
        return label
    chosen = rng.sample(tags, min(len(tags), rng.randint(1, 3)))
    return comma.join([label, *chosen] if rng.random() < 0.7 else [*chosen, label])


def _pick(names: Sequence[str], rng: random.Random) -> int:
    return 0 if len(names) == 1 or rng.random() < USUAL_NAME_SHARE else rng.randrange(1, len(names))


# Chinese


def _chinese_things(thing: SceneObject, rng: random.Random, number: int) -> str:
    name = thing.chinese[_pick(thing.chinese, rng)]
    if number == 1 and rng.random() < 0.2:
        return name
    return f"{CHINESE_NUMBERS[number]}{thing.measure}{name}"


def _chinese_list(names: list[str], rng: random.Random) -> str:
    join = rng.choice(("和", "和", "与", "还有"))
    return f"{'、'.join(names[:-1])}{join}{names[-1]}"


def _chinese_relation(first: str, relation: Relation, second: str, rng: random.Random) -> tuple[str, bool]:
    here, there = rng.choice(CHINESE_RELATIONS[relation]), rng.choice(CHINESE_RELATIONS[OPPOSITES[relation]])
    forms = (
        f"{first}在{second}的{here}",
        f"{first}在{second}{here}",
        f"{second}的{here}是{first}",
        f"{second}的{here}有{first}",
        f"{here}是{first}，{there}是{second}",
        f"{here}有{first}，{there}有{second}",
        f"{first}在{here}，{second}在{there}",
    )
    return rng.choice(forms), True


def _chinese_sentence(
    rng: random.Random, phrase: str, is_clause: bool, ground: str | None, style: str | None, lead_in: bool
) -> str:
    colour = GROUNDS[ground].chinese if ground else ""
    shown = rng.choice(("背景", "背景", "底色")) if ground else ""
    if ground is None:
        sentence = f"{rng.choice(('画着', '画面上有', '图里有', '图片：'))}{phrase}" if lead_in else phrase
        if lead_in and is_clause:
            sentence = f"{rng.choice(('图片里', '画面上', '图中'))}，{phrase}"
    elif is_clause:
        sentence = rng.choice(
            (
                f"{colour}色{shown}上，{phrase}",
                f"在{colour}色的{shown}上，{phrase}",
                f"{colour}色{shown}，{phrase}",
                f"{colour}底，{phrase}",
                f"{phrase}，{colour}色{shown}",
                f"{phrase}，{shown}是{colour}色的",
                f"{phrase}，{colour}底",
            )
        )
        if lead_in:
            sentence = f"{rng.choice(('画一幅画：', '图片：', '一张图，', '请画：'))}{sentence}"
    elif lead_in:
        sentence = rng.choice(
            (
                f"一张{colour}色{shown}的图片，上面有{phrase}",
                f"{colour}色{shown}的图，画的是{phrase}",
                f"画{phrase}，{shown}是{colour}色",
                f"画出{colour}色{shown}上的{phrase}",
                f"图片：{colour}色{shown}上的{phrase}",
                f"画面是{colour}色的{shown}，有{phrase}",
            )
        )
    else:
        sentence = rng.choice(
            (
                f"{colour}色{shown}上的{phrase}",
                f"{colour}色{shown}上的{phrase}",
                f"{colour}色{shown}上有{phrase}",
                f"在{colour}色的{shown}上，有{phrase}",
                f"{colour}色的{shown}，{phrase}",
                f"{colour}底{phrase}",
                f"{colour}底，{phrase}",
                f"{phrase}，{colour}色{shown}",
                f"{phrase}在{colour}色{shown}上",
                f"{phrase}，{shown}是{colour}色的",
            )
        )
    if style:
        sentence = rng.choice(
            (
                f"{sentence}，{style}风格",
                f"{style}风格，{sentence}",
                f"{style}风格的图：{sentence}",
                f"{sentence}（{style}风格）",
            )
        )
    return sentence


# English


def _english_things(thing: SceneObject, rng: random.Random, number: int) -> str:
    if number > 1:
        return f"{ENGLISH_NUMBERS[number]} {thing.plural[_pick(thing.plural, rng)]}"
    name = thing.singular[_pick(thing.singular, rng)]
    return f"{_article(name)} {name}"


def _article(name: str) -> str:
    """Return the article that a name of the table takes."""
    if name in {"sun", "rainbow"} and name == "sun":
        return "the"
    return "an" if name[0].lower() in "aeio" or name.startswith(("um", "un")) else "a"


def _english_list(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _english_relation(first: str, relation: Relation, second: str, rng: random.Random) -> tuple[str, bool]:
    here = rng.choice(ENGLISH_RELATIONS[relation])
    side, other_side = ENGLISH_SIDES[relation], ENGLISH_SIDES[OPPOSITES[relation]]
    phrases = (
        f"{first} {here} {second}",
        f"{first} {here} {second}",
        f"{first} {side} and {second} {other_side}",
    )
    clauses = (
        f"{first} is {here} {second}",
        f"{side}, {first}, and {other_side}, {second}",
        f"{side} there is {first}, {other_side} {second}",
    )
    if rng.random() < 0.6:
        return rng.choice(phrases), False
    return rng.choice(clauses), True


def _english_sentence(
    rng: random.Random, phrase: str, is_clause: bool, ground: str | None, style: str | None, lead_in: bool
) -> str:
    back = rng.choice(("background", "background", "backdrop"))
    if ground is None:
        sentence = phrase
        if lead_in and not is_clause:
            sentence = f"{rng.choice(('a picture of', 'an image of', 'draw', 'there is'))} {phrase}"
            sentence = (
                sentence.replace("there is t", "there are t")
                if phrase.startswith(("two", "three"))
                else sentence
            )
            sentence = (
                sentence.replace("there is f", "there are f") if phrase.startswith("four") else sentence
            )
    elif is_clause:
        sentence = rng.choice(
            (
                f"on a {ground} {back}, {phrase}",
                f"{phrase}, on a {ground} {back}",
                f"{phrase}, {ground} {back}",
                f"{ground} {back}: {phrase}",
            )
        )
    elif lead_in:
        sentence = rng.choice(
            (
                f"a picture of {phrase} on a {ground} {back}",
                f"an image with {phrase} on a {ground} {back}",
                f"draw {phrase} on a {ground} {back}",
                f"a {ground} picture with {phrase}",
                f"a {ground} {back} with {phrase}",
            )
        )
    else:
        sentence = rng.choice(
            (
                f"{phrase} on a {ground} {back}",
                f"{phrase} on a {ground} {back}",
                f"{phrase} on {ground}",
                f"{phrase}, {ground} {back}",
                f"{phrase} against a {ground} {back}",
                f"on a {ground} {back}, {phrase}",
                f"{phrase} with a {ground} {back}",
            )
        )
    if ground == "orange":
        sentence = sentence.replace(" a orange", " an orange")
        sentence = f"an{sentence[1:]}" if sentence.startswith("a orange") else sentence
    if style:
        sentence = rng.choice(
            (
                f"{sentence}, {style} style",
                f"{style} style, {sentence}",
                f"{sentence} in {style} style",
                f"{style} style: {sentence}",
            )
        )
    return sentence[0].upper() + sentence[1:] if rng.random() < 0.25 else sentence
