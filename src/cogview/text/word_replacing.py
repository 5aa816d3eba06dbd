"""Word replacing: give words for people a balanced gender and skin tone before drawing.

For "a doctor" a model draws whom its training data shows most. For "a woman doctor: dark skin tone" it draws her, so
this asks for all combinations equally often. The wording is that of emojibase's labels (女消防员: 中等肤色), which are
the captions of this project's single icons.

The choice is a function of the text, the word's number in it and the seed: two consecutive seeds have both genders,
five all skin tones, ten each pair exactly once, wherever they start.

Words and their forms are in `people/`: `english.tsv`, `chinese.tsv`, and `named.tsv` for what leaves a word alone.

Paper: appendix D.
"""

import csv
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal, cast, get_args

Language = Literal["en", "zh"]
Gender = Literal["woman", "man"]
Attribute = Literal["gender", "skin tone"]
Kind = Literal["person", "woman", "man", "keep"]
Where = Literal["before", "clause", "text", "never"]

SKIN_TONES: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "light skin tone",
        "medium-light skin tone",
        "medium skin tone",
        "medium-dark skin tone",
        "dark skin tone",
    ),
    "zh": ("较浅肤色", "中等-浅肤色", "中等肤色", "中等-深肤色", "较深肤色"),
}
NUM_COMBINATIONS = len(get_args(Gender)) * len(SKIN_TONES["en"])
"""Consecutive seeds that have each gender with each skin tone once."""

_LANGUAGES: tuple[Language, ...] = get_args(Language)
_BEFORE: frozenset[Where] = frozenset({"before"})
_ELSEWHERE: frozenset[Where] = frozenset({"clause", "text", "never"})
_LETTER = "[A-Za-z0-9_À-ɏ]"
# No letter may follow, even after a hyphen or an apostrophe: a doctor's hat is no doctor.
_ENGLISH_START, _ENGLISH_END = rf"(?<!{_LETTER})(?<!{_LETTER}['’-])", rf"(?!['’-]?{_LETTER})"
_CLAUSE_END = re.compile(r"[.;!?\n。；！？、]|\band\b|\bor\b|和|与|跟|或|还有", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Word:
    """Word for people.

    Args:
        language: of the word.
        kind: gender that it names, or `keep` if it is not replaced.
        forms: the word with each gender.
    """

    language: Language
    kind: Kind
    forms: Mapping[Gender, str]


@dataclass(frozen=True, kw_only=True)
class _Person:
    """Word for people in a text.

    Args:
        word: the word.
        span: of the word alone.
        start: of the attributes right before the word.
        article: span of the a or an right before it, if any.
        named: attributes that the text names.
    """

    word: _Word
    span: tuple[int, int]
    start: int
    article: tuple[int, int] | None
    named: frozenset[Attribute]


def replace_words(text: str, seed: int) -> str:
    """Return a text in which each word for people names a gender and a skin tone.

    What the text names already is kept, and so is a text without people. A plural gets one pair.

    Args:
        text: in English, Chinese or both.
        seed: of the picture; not negative.

    Paper: appendix D.
    """
    parts, done = [], 0
    for number, person in enumerate(_people(text)):
        gender, tone = _draw(f"{text}\x1f{number}", seed, person.word.language)
        start, end = person.span
        word = text[start:end]
        if "gender" not in person.named:
            word = _cased_as(word, person.word.forms[gender])
            if person.article is not None:
                old, start = text[slice(*person.article)], person.article[0]
                article = "an" if word[0].lower() in "aeiou" else "a"
                word = f"{_cased_as(old[0], article)}{text[person.article[1] : person.span[0]]}{word}"
        if "skin tone" not in person.named:
            word = f"{word}: {tone}"
        parts += [text[done:start], word]
        done = end
    return "".join([*parts, text[done:]])


def _draw(key: str, seed: int, language: Language) -> tuple[Gender, str]:
    """Return the gender and skin tone of a seed: in turn, in an order that depends on the key."""
    rng = random.Random(key)  # seeded by a string, the same on every machine
    genders, tones = list(get_args(Gender)), list(SKIN_TONES[language])
    rng.shuffle(genders)
    rng.shuffle(tones)
    # Two and five are coprime, so ten consecutive seeds have all pairs.
    return genders[seed % len(genders)], tones[seed % len(tones)]


def _people(text: str) -> list[_Person]:
    """Return the words of a text to replace, in order."""
    matches = [
        _person(text, match, language)
        for language in _LANGUAGES
        for match in _pattern(language).finditer(text)
    ]
    people: list[_Person] = []
    for person in sorted(matches, key=lambda person: person.span):
        # "An old woman doctor" is one person; Chinese writes no space there, and 老师学生 are two.
        is_english = person.word.language == "en"
        if is_english and people and text[people[-1].span[1] : person.start].isspace():
            before = people.pop()
            says_gender = before.word.kind in ("woman", "man")
            person = replace(person, named=person.named | ({"gender"} if says_gender else set()))
        people.append(person)
    return [person for person in people if person.word.kind != "keep"]


def _person(text: str, match: re.Match[str], language: Language) -> _Person:
    word = _words(language)[match["word"].lower()]
    named = {attribute for attribute in get_args(Attribute) if _is_named(attribute, text, match, language)}
    if word.kind in ("woman", "man"):
        named.add("gender")
    article = match.span("article") if match["article"] and not match["before"] else None
    return _Person(
        word=word,
        span=match.span("word"),
        start=match.start("before"),
        article=article,
        named=frozenset(named),
    )


def _is_named(attribute: Attribute, text: str, match: re.Match[str], language: Language) -> bool:
    """Return whether a text names an attribute of a person in it."""
    if match["before"] and _naming(language, attribute, _BEFORE).search(match["before"]):
        return True
    ends = [end.span() for end in _CLAUSE_END.finditer(text)]
    clause_start = max((end for _, end in ends if end <= match.start("word")), default=0)
    clause_end = min((start for start, _ in ends if start >= match.end("word")), default=len(text))
    for spoken in _LANGUAGES:
        where_of = _named(spoken, attribute, _ELSEWHERE)
        for naming in _naming(spoken, attribute, _ELSEWHERE).finditer(text):
            where = where_of[naming[0].lower()]
            if where == "text" or (where == "clause" and clause_start <= naming.start() < clause_end):
                return True
    return False


def _cased_as(model: str, word: str) -> str:
    """Return a word with the capitals of another: none, the first, or all."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def _rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table in `people/`."""
    text = resources.files("cogview.text").joinpath("people", name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


@cache
def _words(language: Language) -> dict[str, _Word]:
    """Return the words for people of a language, in lower case, including English plurals."""
    words: dict[str, _Word] = {}
    for row in _rows("english.tsv" if language == "en" else "chinese.tsv"):
        kind = cast(Kind, row["kind"])
        if language == "zh":
            forms: dict[Gender, str] = {
                "woman": row["woman"] or f"女{row['word']}",
                "man": row["man"] or f"男{row['word']}",
            }
            words[row["word"]] = _Word(language=language, kind=kind, forms=forms)
            continue
        for number, word in enumerate((row["word"], row["plural"])):
            woman, man = (("woman", "man"), ("women", "men"))[number]
            forms = {
                "woman": row["woman"].split("|")[number] if row["woman"] else f"{woman} {word}",
                "man": row["man"].split("|")[number] if row["man"] else f"{man} {word}",
            }
            words.setdefault(word, _Word(language=language, kind=kind, forms=forms))
    return words


@cache
def _named(language: Language, attribute: Attribute, wheres: frozenset[Where]) -> dict[str, Where]:
    """Return the lower-case words that name an attribute, with where they do, for some places."""
    return {
        word.lower(): row["where"]
        for row in _rows("named.tsv")
        if (row["language"], row["attribute"]) == (language, attribute) and row["where"] in wheres
        for word in row["words"].split("|")
    }


def _alternatives(words: Iterable[str]) -> str:
    """Return a pattern for any of some words, the longest first."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)"


@cache
def _pattern(language: Language) -> re.Pattern[str]:
    """Return the pattern of words for people, with the attributes right before them."""
    before = [word for attribute in get_args(Attribute) for word in _named(language, attribute, _BEFORE)]
    people = _alternatives(_words(language))
    if language == "zh":
        return re.compile(rf"(?P<article>(?!))?(?P<before>(?:{_alternatives(before)})*)(?P<word>{people})")
    return re.compile(
        rf"{_ENGLISH_START}(?:(?P<article>an?)\s+)?(?P<before>(?:(?:{_alternatives(before)})\s+)*)"
        rf"(?P<word>{people}){_ENGLISH_END}",
        re.IGNORECASE,
    )


@cache
def _naming(language: Language, attribute: Attribute, wheres: frozenset[Where]) -> re.Pattern[str]:
    """Return the pattern of words that name an attribute, for some places."""
    words = _alternatives(_named(language, attribute, wheres))
    if language == "zh":
        return re.compile(words)
    return re.compile(rf"{_ENGLISH_START}(?:{words}){_ENGLISH_END}", re.IGNORECASE)
