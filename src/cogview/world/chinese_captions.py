"""Chinese captions of scenes."""

import random
from collections.abc import Sequence
from functools import cache

from cogview.world.caption_contents import (
    BARE_NOUN_SHARE,
    FULL_STOP_SHARE,
    Content,
    Manner,
    Mention,
    NounPhrase,
    names_avoiding,
    pick_name,
)
from cogview.world.caption_words import CHINESE_SIDES, SIZE_WORDS
from cogview.world.chinese_forms import (
    BACKGROUNDS,
    BESIDE_CLAUSES,
    BESIDE_THINGS,
    CLAUSE_SENTENCES,
    CLAUSES,
    CLAUSES_BEFORE_GROUNDS,
    COLOURED,
    FREE_CLAUSES_BEFORE_GROUNDS,
    FREE_LISTS,
    FREE_RELATIONS,
    FREE_STYLES,
    FREE_THINGS_ON_GROUNDS,
    LEAD_INS,
    LISTS,
    RELATIONS,
    STYLES,
    THING_SENTENCES,
    THINGS,
    THINGS_LED_IN,
    THINGS_ON_GROUNDS,
)
from cogview.world.chinese_requests import CLAUSE_REQUESTS, REQUESTS
from cogview.world.colours import COLOURS
from cogview.world.objects import GROUNDS, scene_objects
from cogview.world.scenes import OPPOSITES, Relation

NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四", 5: "五", 6: "六"}
REQUEST_SHARE = 0.6
PLAIN_GROUND_SHARE = 0.4
# Colours that may precede a name without 色, as in 红苹果.
_SHORT_COLOURS = "红黄绿蓝黑白"
_SIZE_CHARACTERS = ("大", "小")
_THANKS = ("谢谢", "麻烦")


def noun(mention: Mention, rng: random.Random) -> str:
    """Return one of a thing's names that contains no other colour or size, unlike 红苹果 and 小熊."""
    names: Sequence[str] = mention.thing.chinese
    if mention.colour is not None:
        names = names_avoiding(names, _colour_names())
    if mention.size is not None or mention.avoids_sizes:
        # The usual name is allowed, even 大象 (elephant).
        names = [names[0], *(name for name in names[1:] if not name.startswith(_SIZE_CHARACTERS))]
    return pick_name(names, rng)


def noun_phrase(mention: Mention, noun: str, rng: random.Random) -> NounPhrase:
    """Return 两只猫, 一辆很小的红色汽车, 一座红色的大房子."""
    text, size = noun, ""
    if mention.size is not None:
        words = SIZE_WORDS[mention.size]["zh"]
        size = rng.choice([word for word in words if len(word) > 1 or _is_plain_size(word, noun)])
    if size in _SIZE_CHARACTERS:
        text = f"{size}{noun}"
    if mention.colour is not None:
        colour = pick_name(COLOURS[mention.colour].chinese, rng)
        text = rng.choice(_coloured_forms(colour, text)).format(colour=colour, name=text)
    if size not in _SIZE_CHARACTERS:
        text = f"{size}{text}"
    if mention.number == 1 and rng.random() < BARE_NOUN_SHARE:
        return NounPhrase(text=text)
    return NounPhrase(text=f"{NUMBERS[mention.number]}{mention.thing.measure}{text}", number=mention.number)


def _coloured_forms(colour: str, name: str) -> list[str]:
    """Return the possible forms of a colour before a name: 红色的大房子, but not 红大房子, 绿黄瓜 or 黄书."""
    is_long = len(name) > 1 and not name.startswith((*_SIZE_CHARACTERS, *_colour_names()))
    return [
        form for form in COLOURED if "的" in form or (is_long and ("色" in form or colour in _SHORT_COLOURS))
    ]


def _is_plain_size(size: str, noun: str) -> bool:
    """Return whether 大 or 小 before a name is a size: not in 小鸡 (a name), 大门 (another thing), 大红 (a colour)."""
    starts_otherwise = noun.startswith((*_SIZE_CHARACTERS, *_colour_names()))
    is_long = len(noun) > 1 or size == "小"
    return is_long and not starts_otherwise and f"{size}{noun}" not in _all_names()


@cache
def _colour_names() -> tuple[str, ...]:
    return tuple(name for table in (COLOURS, GROUNDS) for each in table.values() for name in each.chinese)


@cache
def _all_names() -> frozenset[str]:
    return frozenset(name for thing in scene_objects().values() for name in thing.chinese)


def relation(
    rng: random.Random, first: NounPhrase, relation: Relation, second: NounPhrase, manner: Manner
) -> Content:
    """Return 一只猫在一只狗的左边."""
    number = rng.randrange(len(CHINESE_SIDES[relation]))  # the same suffix for both: 左边, 右边
    side, other_side = CHINESE_SIDES[relation][number], CHINESE_SIDES[OPPOSITES[relation]][number]
    form = rng.choice(FREE_RELATIONS if manner == "free" else RELATIONS)
    text = form.format(first=first.text, second=second.text, side=side, other_side=other_side)
    return Content(text=text, form="clause")


def beside(rng: random.Random, first: NounPhrase, second: NounPhrase) -> Content:
    """Return 一只猫旁边是一只狗."""
    form = rng.choice(BESIDE_CLAUSES + BESIDE_THINGS)
    text = form.format(first=first.text, second=second.text)
    return Content(text=text, form="clause" if form in BESIDE_CLAUSES else "things")


def list_things(rng: random.Random, things: Sequence[NounPhrase], manner: Manner) -> Content:
    """Return 一只猫、一只狗和一只鸟."""
    texts = [each.text for each in things]
    form = rng.choice(FREE_LISTS if manner == "free" else LISTS)
    return Content(text=form.format(start="、".join(texts[:-1]), last=texts[-1]))


def sentence(
    rng: random.Random, content: Content, ground: str | None, style: str | None, manner: Manner
) -> str:
    """Return the whole caption."""
    text = (
        _without_ground(rng, content, manner) if ground is None else _on_ground(rng, content, ground, manner)
    )
    if style is not None:
        form = rng.choice(FREE_STYLES if manner == "free" else STYLES)
        mark = "？" if text.endswith("？") else ""
        text = form.format(sentence=text.removesuffix("？"), style=style) + mark
    return f"{text}。" if rng.random() < FULL_STOP_SHARE and not text.endswith("？") else text


def _without_ground(rng: random.Random, content: Content, manner: Manner) -> str:
    if manner == "free":
        return _request(rng, content, content.text, content.text)
    return f"{rng.choice(LEAD_INS)}{content.text}" if manner == "led-in" else content.text


def _on_ground(rng: random.Random, content: Content, ground: str, manner: Manner) -> str:
    colour = pick_name(GROUNDS[ground].chinese, rng)
    on = rng.choice(BACKGROUNDS).format(colour=colour)
    slots = {"content": content.text, "ground": on, "colour": colour}
    is_clause = content.form != "things"
    if manner != "free":
        forms = CLAUSES if is_clause else THINGS_LED_IN if manner == "led-in" else THINGS
        lead_in = rng.choice(LEAD_INS) if is_clause and manner == "led-in" else ""
        return f"{lead_in}{rng.choice(forms).format(**slots)}"
    if rng.random() >= REQUEST_SHARE:
        return rng.choice(CLAUSE_SENTENCES if is_clause else THING_SENTENCES).format(**slots)
    is_plain = rng.random() < PLAIN_GROUND_SHARE
    before = CLAUSES_BEFORE_GROUNDS if is_plain else FREE_CLAUSES_BEFORE_GROUNDS
    if is_clause:
        return _request(rng, content, rng.choice(before).format(**slots))
    on_ground = THINGS_ON_GROUNDS if is_plain else FREE_THINGS_ON_GROUNDS
    what, thing = (rng.choice(forms).format(**slots) for forms in (before + on_ground, on_ground))
    return _request(rng, content, what, thing)


def _request(rng: random.Random, content: Content, what: str, thing: str = "") -> str:
    """Return a request; `thing` is `what` without a comma."""
    forms: tuple[str, ...] = REQUESTS if content.form == "things" else CLAUSE_REQUESTS
    if what.endswith(_THANKS):  # thank only once
        forms = tuple(form for form in forms if not any(word in form for word in _THANKS))
    return rng.choice(forms).format(what=what, thing=thing)
