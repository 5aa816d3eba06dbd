"""What is said of a scene, in Chinese and in English.

A caption is drawn from independent choices: which of an object's names, how the ground is spoken of, from which side a
relation is told, whether the style is named, what words lead in. So the same picture is told in hundreds of ways, and
a model has to learn the words and not the sentences. About half of all captions are of a few plain forms; the others
share hundreds of forms, as people really ask. What is listed is listed in the order of reading, so that a list says
what stands where; and a relation is mostly told from the thing that comes first in it.

Colours of things are always told, and so are the sizes of what is small or big by choice and not for want of room.
"""

import random
from collections import Counter
from dataclasses import replace

from cogview.errors import UsageError
from cogview.world import chinese_captions, english_captions
from cogview.world.caption_contents import Content, Manner, Mention, Telling
from cogview.world.caption_words import STYLE_WORDS
from cogview.world.config import Language
from cogview.world.icons import IconWords
from cogview.world.objects import scene_objects
from cogview.world.scenes import OPPOSITES, Placement, Scene, one_of_each, relation_of, told_size

MAX_ATTEMPTS_PER_CAPTION = 20

# How often a choice is made, of all captions that could make it.
GROUND_SHARE = 0.93
STYLE_SHARE = 0.4
LEAD_IN_SHARE = 0.25
FREE_SENTENCE_SHARE = 0.4
FREE_CONTENT_SHARE = 0.2
RELATION_SHARE = 0.85
RELATION_SHARE_OF_GROUPS_AND_SIZES = 0.6
# Of two things side by side whose relation is not told otherwise.
BESIDE_SHARE = 0.5
# Told from either side equally often, neither the order of the words nor the relation's word says anything of where a
# thing stands, but only both together: a small model does not find that out.
READING_ORDER_SHARE = 0.75

_TELLING: dict[Language, Telling] = {"zh": chinese_captions, "en": english_captions}


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
        content: the name of what the picture shows, one thing, with its article or measure word.
        scene: says the ground and the style.
        rng: decides all other choices.
        language: of the content.
    """
    return _TELLING[language].sentence(rng, Content(text=content), *_choices(scene, rng, language))


def _caption(scene: Scene, rng: random.Random, language: Language, icon_words: IconWords | None) -> str:
    choices = _choices(scene, rng, language)
    if scene.kind == "icon":
        if icon_words is None:
            raise UsageError(
                f"the icon {scene.placements[0].code} is not of the table; pass its words as icon_words"
            )
        content = Content(text=_icon_content(icon_words, rng, language))
    else:
        content = _content(scene, rng, _TELLING[language])
    return _TELLING[language].sentence(rng, content, *choices)


def _choices(scene: Scene, rng: random.Random, language: Language) -> tuple[str | None, str | None, Manner]:
    """Return the ground and the style, where they are told, and the manner of the sentence."""
    ground = scene.ground if rng.random() < GROUND_SHARE else None
    style = rng.choice(STYLE_WORDS[scene.style][language]) if rng.random() < STYLE_SHARE else None
    if rng.random() < FREE_SENTENCE_SHARE:
        return ground, style, "free"
    return ground, style, "led-in" if rng.random() < LEAD_IN_SHARE else "plain"


def _content(scene: Scene, rng: random.Random, telling: Telling) -> Content:
    """Return what a scene shows."""
    things = _in_order(scene)
    counts = Counter(placement.code for placement in scene.placements)
    mentions = [
        Mention(
            thing=scene_objects()[placement.code],
            number=counts[placement.code] if scene.kind in ("count", "groups") else 1,
            colour=placement.colour,
            size=told_size(scene, placement),
            avoids_sizes=scene.kind == "sizes",
        )
        for placement in things
    ]
    nouns = [telling.noun(mention, rng) for mention in mentions]
    is_same = len(counts) == 1
    if is_same:  # of two colours or sizes: both by the same name
        nouns = [nouns[0]] * len(nouns)
    named = [telling.named(mention, noun, rng) for mention, noun in zip(mentions, nouns, strict=True)]
    if not is_same:
        named = [replace(each, short=None) for each in named]
    if len(named) == 1:
        return Content(
            text=named[0].text,
            first_number=named[0].number,
            is_plural=named[0].number > 1,
            num_things=named[0].number,
        )
    manner: Manner = "free" if rng.random() < FREE_CONTENT_SHARE else "plain"
    if scene.kind == "group":
        return telling.listed(rng, named, manner)
    relation = relation_of(*things)[0]
    if rng.random() < (RELATION_SHARE if scene.kind == "relation" else RELATION_SHARE_OF_GROUPS_AND_SIZES):
        if rng.random() >= READING_ORDER_SHARE:
            named.reverse()
            relation = OPPOSITES[relation]
        return telling.relation(rng, named[0], relation, named[1], manner)
    if relation == "left" and rng.random() < BESIDE_SHARE:
        return telling.beside(rng, named[0], named[1])
    return telling.listed(rng, named, manner)


def _in_order(scene: Scene) -> list[Placement]:
    """Return what a scene shows in the order of reading, from the upper left: each thing, or one for each group."""
    if scene.kind in ("count", "groups"):
        things = one_of_each(scene)
    else:
        things = sorted(scene.placements, key=lambda placement: (placement.row, placement.column))
    # Two of different sizes stand on common ground, so that the left one may begin further below.
    if scene.kind in ("relation", "groups", "sizes") and relation_of(*things)[0] in ("right", "below"):
        things.reverse()
    return things


def _icon_content(words: IconWords, rng: random.Random, language: Language) -> str:
    label, tags = words.labels[language], words.tags[language]
    if not tags or rng.random() < 0.4:
        return label
    chosen = rng.sample(tags, min(len(tags), rng.randint(1, 3)))
    comma = "，" if language == "zh" else ", "
    return comma.join([label, *chosen] if rng.random() < 0.7 else [*chosen, label])
