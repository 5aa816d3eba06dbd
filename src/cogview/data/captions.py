"""What is said of a scene, in Chinese and in English.

A caption is drawn from independent choices: which of an object's names, how the ground is spoken of, from which side a
relation is told, whether the style is named, what words lead in. So the same picture is told in hundreds of ways, and
a model has to learn the words and not the sentences. What is listed is listed in the order of reading, line by line
from the upper left, so that a list says what stands where; and a relation is mostly told from the thing that comes
first in it.
"""

import random
from collections.abc import Sequence

from cogview.data.caption_words import (
    BESIDE_WORDS,
    CHINESE_SIDES,
    ENGLISH_PREPOSITIONS,
    ENGLISH_SIDES,
    RELATION_WORDS,
    SIZE_WORDS,
    STYLE_WORDS,
)
from cogview.data.config import Language
from cogview.data.icons import IconWords
from cogview.data.scenes import OPPOSITES, Relation, Scene, relation_of
from cogview.data.world import GROUNDS, SceneObject, scene_objects
from cogview.errors import UsageError

__all__ = (
    "BESIDE_WORDS",
    "RELATION_WORDS",
    "SIZE_WORDS",
    "STYLE_WORDS",
    "caption_of",
    "captions",
    "english_article",
)

MAX_ATTEMPTS_PER_CAPTION = 20

# How often a choice is made, of all captions that could make it.
USUAL_NAME_SHARE = 0.75
GROUND_SHARE = 0.93
STYLE_SHARE = 0.4
LEAD_IN_SHARE = 0.25
RELATION_SHARE = 0.85
# Told from either side equally often, neither the order of the words nor the relation's word says anything of where a
# thing stands, but only both together: a small model does not find that out.
READING_ORDER_SHARE = 0.75
BARE_NOUN_SHARE = 0.2
FULL_STOP_SHARE = 0.06
CAPITAL_SHARE = 0.25


def captions(
    scene: Scene, rng: random.Random, num: int, language: Language, icon_words: IconWords | None = None
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
    found: dict[str, None] = {}  # a set that keeps the order
    for _ in range(MAX_ATTEMPTS_PER_CAPTION * num):
        if len(found) >= num:
            break
        found[_caption(scene, rng, language, icon_words)] = None
    return list(found)


def caption_of(content: str, scene: Scene, rng: random.Random, language: Language) -> str:
    """Return a caption of a scene whose content is told already, such as "a woman firefighter: dark skin tone".

    Args:
        content: the name of what the picture shows, with its article or measure word.
        scene: says the ground and the style.
        rng: decides all other choices.
        language: of the content.
    """
    ground, style, leads_in = _choices(scene, rng, language)
    sentence = _chinese_sentence if language == "zh" else _english_sentence
    return sentence(rng, content, False, ground, style, leads_in)


def _caption(scene: Scene, rng: random.Random, language: Language, icon_words: IconWords | None) -> str:
    ground, style, leads_in = _choices(scene, rng, language)
    content, is_clause = _content(scene, rng, language, icon_words)
    sentence = _chinese_sentence if language == "zh" else _english_sentence
    return sentence(rng, content, is_clause, ground, style, leads_in)


def _choices(scene: Scene, rng: random.Random, language: Language) -> tuple[str | None, str | None, bool]:
    """Return the ground and the style, where they are told, and whether words lead in."""
    ground = scene.ground if rng.random() < GROUND_SHARE else None
    style = rng.choice(STYLE_WORDS[scene.style][language]) if rng.random() < STYLE_SHARE else None
    return ground, style, rng.random() < LEAD_IN_SHARE


def _content(
    scene: Scene, rng: random.Random, language: Language, icon_words: IconWords | None
) -> tuple[str, bool]:
    """Return what the scene shows, and whether that is a clause rather than a name of things."""
    if scene.kind == "icon":
        if icon_words is None:
            raise UsageError(
                f"the icon {scene.placements[0].code} is not of the table; pass its words as icon_words"
            )
        return _icon_content(icon_words, rng, language), False
    things = [scene_objects()[placement.code] for placement in scene.placements]
    name = _chinese_name if language == "zh" else _english_name
    if scene.kind in ("single", "count"):
        return name(things[0], rng, len(things)), False
    in_order = sorted(scene.placements, key=lambda placement: (placement.row, placement.column))
    names = [name(scene_objects()[placement.code], rng, 1) for placement in in_order]
    if scene.kind == "relation" and rng.random() < RELATION_SHARE:
        relation = relation_of(in_order[0], in_order[1])[0]
        if rng.random() >= READING_ORDER_SHARE:
            names.reverse()
            relation = OPPOSITES[relation]
        tell = _chinese_relation if language == "zh" else _english_relation
        return tell(rng, names[0], relation, names[1])
    return (_chinese_list if language == "zh" else _english_list)(rng, names), False


def _icon_content(words: IconWords, rng: random.Random, language: Language) -> str:
    label, tags = words.labels[language], words.tags[language]
    if not tags or rng.random() < 0.4:
        return label
    chosen = rng.sample(tags, min(len(tags), rng.randint(1, 3)))
    comma = "，" if language == "zh" else ", "
    return comma.join([label, *chosen] if rng.random() < 0.7 else [*chosen, label])


def _one_of(names: Sequence[str], rng: random.Random) -> str:
    """Return the usual name, which comes first, or now and then another."""
    if len(names) == 1 or rng.random() < USUAL_NAME_SHARE:
        return names[0]
    return rng.choice(names[1:])


# Chinese

CHINESE_NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}
CHINESE_RELATIONS = (
    "{first}在{second}的{side}",
    "{first}在{second}{side}",
    "{second}的{side}是{first}",
    "{second}的{side}有{first}",
    "{side}是{first}，{other_side}是{second}",
    "{side}有{first}，{other_side}有{second}",
    "{first}在{side}，{second}在{other_side}",
)
# What comes several times is said more often: it is how most people would ask.
CHINESE_AND = ("和", "和", "和", "与", "还有")
CHINESE_GROUNDS = (*("{colour}色背景",) * 4, "{colour}色的背景", "{colour}色底色", "{colour}背景")
CHINESE_THINGS = (
    *("{ground}上的{content}",) * 5,
    "{ground}上有{content}",
    "在{ground}上，有{content}",
    "在{ground}上的{content}",
    "{ground}，{content}",
    "{colour}底，{content}",
    "{content}，{ground}",
    "{content}，{colour}底",
    "{content}在{ground}上",
    "{content}，背景是{colour}色的",
)
CHINESE_THINGS_LED_IN = (
    "一张{colour}色背景的图片，里面有{content}",
    "{colour}色背景的图，画的是{content}",
    "画{content}，背景是{colour}色",
    "画出{ground}上的{content}",
    "请画{ground}上的{content}",
    "图片：{ground}上的{content}",
    "画面是{ground}，有{content}",
)
CHINESE_CLAUSES = (
    "{ground}上，{content}",
    "在{ground}上，{content}",
    "{ground}，{content}",
    "{colour}底，{content}",
    "{content}，{ground}",
    "{content}，{colour}底",
    "{content}，背景是{colour}色的",
)
CHINESE_LEAD_INS = ("画一幅画：", "图片：", "一张图，", "请画：")
CHINESE_STYLES = ("{sentence}，{style}风格", "{style}风格，{sentence}", "{sentence}（{style}风格）")


def _chinese_name(thing: SceneObject, rng: random.Random, number: int) -> str:
    name = _one_of(thing.chinese, rng)
    if number == 1 and rng.random() < BARE_NOUN_SHARE:
        return name
    return f"{CHINESE_NUMBERS[number]}{thing.measure}{name}"


def _chinese_list(rng: random.Random, names: list[str]) -> str:
    return f"{'、'.join(names[:-1])}{rng.choice(CHINESE_AND)}{names[-1]}"


def _chinese_relation(rng: random.Random, first: str, relation: Relation, second: str) -> tuple[str, bool]:
    number = rng.randrange(len(CHINESE_SIDES[relation]))  # the same kind of word for both: 左边, 右边
    side, other_side = CHINESE_SIDES[relation][number], CHINESE_SIDES[OPPOSITES[relation]][number]
    form = rng.choice(CHINESE_RELATIONS)
    return form.format(first=first, second=second, side=side, other_side=other_side), True


def _chinese_sentence(
    rng: random.Random, content: str, is_clause: bool, ground: str | None, style: str | None, leads_in: bool
) -> str:
    if ground is None:
        sentence = f"{rng.choice(CHINESE_LEAD_INS)}{content}" if leads_in else content
    else:
        colour = _one_of(GROUNDS[ground].chinese, rng)
        on = rng.choice(CHINESE_GROUNDS).format(colour=colour)
        if is_clause:
            form = rng.choice(CHINESE_CLAUSES)
            if leads_in:
                form = f"{rng.choice(CHINESE_LEAD_INS)}{form}"
        else:
            form = rng.choice(CHINESE_THINGS_LED_IN if leads_in else CHINESE_THINGS)
        sentence = form.format(content=content, ground=on, colour=colour)
    if style is not None:
        sentence = rng.choice(CHINESE_STYLES).format(sentence=sentence, style=style)
    return f"{sentence}。" if rng.random() < FULL_STOP_SHARE else sentence


# English

ENGLISH_NUMBERS = {2: "two", 3: "three", 4: "four"}
ENGLISH_RELATION_THINGS = (
    "{first} {preposition} {second}",
    "{first} {preposition} {second}",
    "{first} {side} and {second} {other_side}",
)
ENGLISH_RELATION_CLAUSES = (
    "{first} is {preposition} {second}",
    "{preposition} {second} is {first}",
    "{side} is {first}, {other_side} is {second}",
    "{side} there is {first}, {other_side} {second}",
)
ENGLISH_BACKGROUNDS = (*("background",) * 5, "backdrop", "ground")
ENGLISH_THINGS = (
    *("{content} on {a_ground}",) * 4,
    "{content} on {colour}",
    "{content}, {ground}",
    "{content} against {a_ground}",
    "on {a_ground}, {content}",
    "{content} with {a_ground}",
)
ENGLISH_THINGS_LED_IN = (
    "a picture of {content} on {a_ground}",
    "an image with {content} on {a_ground}",
    "draw {content} on {a_ground}",
    "{a_colour} picture with {content}",
    "{a_ground} with {content}",
)
ENGLISH_CLAUSES = (
    "on {a_ground}, {content}",
    "{content}, on {a_ground}",
    "{content}, {ground}",
    "with {a_ground}, {content}",
)
ENGLISH_LEAD_INS = ("a picture of ", "an image of ", "draw ")
ENGLISH_STYLES = (
    "{sentence}, {style} style",
    "{style} style, {sentence}",
    "{sentence}, in {style} style",
    "{style} style: {sentence}",
)


def english_article(name: str) -> str:
    """Return the article before a name of the table or a colour: all their vowels are spoken as vowels."""
    return "an" if name[0].lower() in "aeiou" or name == "hourglass" else "a"


def _english_name(thing: SceneObject, rng: random.Random, number: int) -> str:
    if number > 1:
        return f"{ENGLISH_NUMBERS[number]} {_one_of(thing.plural, rng)}"
    name = _one_of(thing.singular, rng)
    return f"{english_article(name)} {name}"


def _english_list(_rng: random.Random, names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _english_relation(rng: random.Random, first: str, relation: Relation, second: str) -> tuple[str, bool]:
    is_clause = rng.random() < 0.4
    form = rng.choice(ENGLISH_RELATION_CLAUSES if is_clause else ENGLISH_RELATION_THINGS)
    told = form.format(
        first=first,
        second=second,
        preposition=rng.choice(ENGLISH_PREPOSITIONS[relation]),
        side=ENGLISH_SIDES[relation],
        other_side=ENGLISH_SIDES[OPPOSITES[relation]],
    )
    return told, is_clause


def _english_sentence(
    rng: random.Random, content: str, is_clause: bool, ground: str | None, style: str | None, leads_in: bool
) -> str:
    if ground is None:
        # "a picture of a cat is left of a dog" would be no English.
        sentence = f"{rng.choice(ENGLISH_LEAD_INS)}{content}" if leads_in and not is_clause else content
    else:
        colour = _one_of(GROUNDS[ground].english, rng)
        a_colour = f"{english_article(colour)} {colour}"
        back = rng.choice(ENGLISH_BACKGROUNDS)
        if is_clause:
            form = rng.choice(ENGLISH_CLAUSES)
        else:
            form = rng.choice(ENGLISH_THINGS_LED_IN if leads_in else ENGLISH_THINGS)
        sentence = form.format(
            content=content,
            ground=f"{colour} {back}",
            a_ground=f"{a_colour} {back}",
            colour=colour,
            a_colour=a_colour,
        )
    if style is not None:
        sentence = rng.choice(ENGLISH_STYLES).format(sentence=sentence, style=style)
    if rng.random() < CAPITAL_SHARE:
        sentence = sentence[0].upper() + sentence[1:]
    return f"{sentence}." if rng.random() < FULL_STOP_SHARE else sentence
