"""English captions of scenes."""

import random
import re
from collections.abc import Sequence
from typing import Literal

from cogview.world.caption_contents import (
    CAPITAL_SHARE,
    FULL_STOP_SHARE,
    Content,
    Manner,
    Mention,
    NounPhrase,
    names_avoiding,
    pick_name,
)
from cogview.world.caption_words import ENGLISH_PREPOSITIONS, ENGLISH_SIDES, SIZE_WORDS
from cogview.world.colours import COLOURS
from cogview.world.english_forms import (
    BACKGROUNDS,
    BESIDE_CLAUSES,
    BESIDE_INVERTED_CLAUSES,
    BESIDE_THINGS,
    CLAUSE_SENTENCES,
    CLAUSES,
    CLAUSES_BEFORE_GROUNDS,
    FREE_CLAUSES_BEFORE_GROUNDS,
    FREE_LISTS,
    FREE_RELATION_CLAUSES,
    FREE_RELATION_INVERTED_CLAUSES,
    FREE_RELATION_THINGS,
    FREE_STYLES,
    FREE_THINGS_ON_GROUNDS,
    LEAD_INS,
    LISTS,
    RELATION_CLAUSES,
    RELATION_INVERTED_CLAUSES,
    RELATION_THINGS,
    STYLES,
    THING_SENTENCES,
    THING_SENTENCES_WITHOUT_GROUND,
    THINGS,
    THINGS_LED_IN,
    THINGS_ON_GROUNDS,
)
from cogview.world.english_requests import CLAUSE_REQUESTS, INVERTED_CLAUSE_REQUESTS, REQUESTS
from cogview.world.objects import GROUNDS
from cogview.world.scenes import OPPOSITES, Relation

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
REQUEST_SHARE = 0.6
PLAIN_GROUND_SHARE = 0.4
CLAUSE_SHARE = 0.4
SHORT_SHARE = 0.3

# Vowels pronounced as consonants, as in "unicorn" and "ukulele", and vice versa, as in "hourglass" and "X-ray".
_AS_CONSONANT = re.compile(r"(uni(?![dmn])|uku|eu|ewe|uti|ute|use|usu|ura|ufo|u\b|one\b)", re.IGNORECASE)
_AS_VOWEL = re.compile(r"(hour|honest|honou?r|heir|[fhlmnrsx]\b|8|11\b|18\b)", re.IGNORECASE)
_POLITE = re.compile(r"\b(please|thanks)\b", re.IGNORECASE)
# In lists with these a verb agrees with the first thing alone: "a cat with a dog is".
_SINGULAR = re.compile(r"\b(with|plus|as well as)\b")


def english_article(name: str) -> str:
    """Return the indefinite article by pronunciation: "an hourglass", "a unicorn"."""
    if _AS_CONSONANT.match(name):
        return "a"
    return "an" if name[0].lower() in "aeiou" or _AS_VOWEL.match(name) else "a"


def noun(mention: Mention, rng: random.Random) -> str:
    """Return one of a thing's names that contains no other colour or size."""
    names: Sequence[str] = mention.thing.plural if mention.number > 1 else mention.thing.singular
    words: list[str] = []
    if mention.colour is not None:
        words += (
            f"{word} " for colour in (COLOURS, GROUNDS) for each in colour.values() for word in each.english
        )
    if mention.size is not None or mention.avoids_sizes:
        words += (f"{word} " for size in SIZE_WORDS.values() for word in size["en"])
    return pick_name(names_avoiding(names, words), rng)


def noun_phrase(mention: Mention, noun: str, rng: random.Random) -> NounPhrase:
    """Return "two cats", "a small red car"."""
    adjectives = []
    if mention.size is not None:
        adjectives.append(pick_name(SIZE_WORDS[mention.size]["en"], rng))
    if mention.colour is not None:
        adjectives.append(pick_name(COLOURS[mention.colour].english, rng))
    text = " ".join([*adjectives, noun])
    if mention.number > 1:
        return NounPhrase(text=f"{NUMBERS[mention.number]} {text}", number=mention.number)
    short = " ".join([*adjectives, "one"])
    return NounPhrase(
        text=f"{english_article(text)} {text}",
        short=f"{english_article(short)} {short}" if adjectives else None,
    )


def relation(
    rng: random.Random, first: NounPhrase, relation: Relation, second: NounPhrase, manner: Manner
) -> Content:
    """Return "a cat to the left of a dog"."""
    is_clause = rng.random() < CLAUSE_SHARE
    clauses: tuple[str, ...]
    turned: tuple[str, ...]
    things: tuple[str, ...]
    if manner == "free":
        clauses, turned, things = FREE_RELATION_CLAUSES, FREE_RELATION_INVERTED_CLAUSES, FREE_RELATION_THINGS
    else:
        clauses, turned, things = RELATION_CLAUSES, RELATION_INVERTED_CLAUSES, RELATION_THINGS
    form = rng.choice(clauses + turned if is_clause else things)
    number = rng.randrange(len(ENGLISH_PREPOSITIONS[relation]))
    return _of_two(
        rng,
        form,
        first,
        second,
        "inverted clause" if form in turned else "clause" if is_clause else "things",
        preposition=ENGLISH_PREPOSITIONS[relation][number],
        other_preposition=ENGLISH_PREPOSITIONS[OPPOSITES[relation]][number],
        side=ENGLISH_SIDES[relation],
        other_side=ENGLISH_SIDES[OPPOSITES[relation]],
    )


def beside(rng: random.Random, first: NounPhrase, second: NounPhrase) -> Content:
    """Return "a cat next to a dog"."""
    form = rng.choice(BESIDE_THINGS + BESIDE_CLAUSES + BESIDE_INVERTED_CLAUSES)
    if form in BESIDE_THINGS:
        return _of_two(rng, form, first, second, "things")
    return _of_two(rng, form, first, second, "clause" if form in BESIDE_CLAUSES else "inverted clause")


def list_things(rng: random.Random, things: Sequence[NounPhrase], manner: Manner) -> Content:
    """Return "a cat, a dog and a bird"."""
    texts = [each.text for each in things]
    if things[-1].short is not None and rng.random() < SHORT_SHARE:
        texts[-1] = things[-1].short
    forms: tuple[str, ...] = FREE_LISTS if manner == "free" else LISTS
    if len(things) > 2:  # in "a cat, a dog with a bird" the bird would belong to the dog
        forms = tuple(form for form in forms if not _SINGULAR.search(form))
    form = rng.choice(forms)
    return Content(
        text=form.format(start=", ".join(texts[:-1]), last=texts[-1]),
        first_number=things[0].number,
        is_plural=len(things) > 2 or things[0].number > 1 or not _SINGULAR.search(form),
        num_things=sum(each.number for each in things),
    )


def _of_two(
    rng: random.Random,
    form: str,
    first: NounPhrase,
    second: NounPhrase,
    kind: Literal["things", "clause", "inverted clause"],
    **slots: str,
) -> Content:
    """Fill a form with two things; of two equal things the later may be "a blue one"."""
    texts, later = {"first": first.text, "second": second.text}, "second"
    if form.index("{second}") < form.index("{first}"):
        later = "first"
    short = first.short if later == "first" else second.short
    if short is not None and rng.random() < SHORT_SHARE:
        texts[later] = short
    leading = first if later == "second" else second
    text = form.format(
        **texts,
        **slots,
        is_=_is(first.number),
        is_second=_is(second.number),
        has_second="has" if second.number == 1 else "have",
        it=_it(first.number),
        it_second=_it(second.number),
    )
    are_two = re.search(r"\{first\}.*(\band\b|\{side\},).*\{second\}", form) is not None
    return Content(
        text=text,
        form=kind,
        first_number=leading.number,
        is_plural=leading.number > 1 or are_two,
        num_things=first.number + second.number,
    )


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _it(number: int) -> str:
    return "it" if number == 1 else "them"


def sentence(
    rng: random.Random, content: Content, ground: str | None, style: str | None, manner: Manner
) -> str:
    """Return the whole caption."""
    text = (
        _without_ground(rng, content, manner) if ground is None else _on_ground(rng, content, ground, manner)
    )
    if style is not None:
        form = _choose_polite_once(rng, FREE_STYLES if manner == "free" else STYLES, text)
        mark = "?" if text.endswith("?") else ""
        a_style = f"{english_article(style)} {style}"
        text = form.format(sentence=text.removesuffix("?"), style=style, a_style=a_style) + mark
    if rng.random() < CAPITAL_SHARE:
        text = text[0].upper() + text[1:]
    return f"{text}." if rng.random() < FULL_STOP_SHARE and not text.endswith("?") else text


def _without_ground(rng: random.Random, content: Content, manner: Manner) -> str:
    if manner == "free":
        if content.form == "things" and rng.random() >= REQUEST_SHARE:
            return rng.choice(THING_SENTENCES_WITHOUT_GROUND).format(
                content=content.text, **_agreement(content)
            )
        return _request(rng, content, content.text)
    # Not "a picture of a cat is left of a dog".
    leads_in = manner == "led-in" and content.form == "things"
    return f"{rng.choice(LEAD_INS)}{content.text}" if leads_in else content.text


def _on_ground(rng: random.Random, content: Content, ground: str, manner: Manner) -> str:
    colour = pick_name(GROUNDS[ground].english, rng)
    a_colour = f"{english_article(colour)} {colour}"
    back = rng.choice(BACKGROUNDS)
    slots = {
        "content": content.text,
        "ground": f"{colour} {back}",
        "a_ground": f"{a_colour} {back}",
        "colour": colour,
        "a_colour": a_colour,
    } | _agreement(content)
    is_thing = content.form == "things"
    forms: tuple[str, ...]
    if manner != "free":
        forms = CLAUSES if not is_thing else THINGS_LED_IN if manner == "led-in" else THINGS
        return rng.choice(forms).format(**slots)
    if rng.random() >= REQUEST_SHARE and content.form != "inverted clause":
        return rng.choice(THING_SENTENCES if is_thing else CLAUSE_SENTENCES).format(**slots)
    plain = rng.random() < PLAIN_GROUND_SHARE
    if is_thing:
        forms = THINGS_ON_GROUNDS if plain else FREE_THINGS_ON_GROUNDS
    else:
        forms = CLAUSES_BEFORE_GROUNDS if plain else FREE_CLAUSES_BEFORE_GROUNDS
    return _request(rng, content, rng.choice(forms).format(**slots))


def _request(rng: random.Random, content: Content, what: str) -> str:
    forms: tuple[str, ...] = {
        "things": REQUESTS,
        "clause": CLAUSE_REQUESTS,
        "inverted clause": INVERTED_CLAUSE_REQUESTS,
    }[content.form]
    return _choose_polite_once(rng, forms, what).format(what=what)


def _choose_polite_once(rng: random.Random, forms: Sequence[str], text: str) -> str:
    """Choose a form, without "please" or "thanks" if the text has such a word."""
    if _POLITE.search(text):
        forms = [form for form in forms if not _POLITE.search(form)]
    return rng.choice(forms)


def _agreement(content: Content) -> dict[str, str]:
    return {
        "there": _is(content.first_number),
        "verb": "are" if content.is_plural else "is",
        "them": _it(content.num_things),
    }
