"""Captions of scenes in Chinese and English.

A caption is sampled by independent choices: names of objects, form of the ground, direction of a relation, mention of
the style, lead-in. Each picture so has hundreds of captions, and a model has to learn words, not sentences. About half
of all captions have a few plain forms; the others share hundreds of forms of real requests. Lists are in reading order,
and relations mostly start from the thing that comes first in it.

Colours of things are always mentioned, and sizes where they were chosen and not caused by the layout.
"""

import random
from collections import Counter
from dataclasses import replace

from cogview.errors import UsageError
from cogview.world import chinese_captions, english_captions
from cogview.world.caption_contents import CaptionWriter, Content, Manner, Mention
from cogview.world.caption_words import STYLE_WORDS
from cogview.world.config import Language
from cogview.world.icons import IconWords
from cogview.world.objects import scene_objects
from cogview.world.scenes import OPPOSITES, Placement, Scene, group_centres, mentioned_size, relation_of

MAX_ATTEMPTS_PER_CAPTION = 20

# Shares of the captions for which the choice exists.
GROUND_SHARE = 0.93
STYLE_SHARE = 0.4
LEAD_IN_SHARE = 0.25
FREE_SENTENCE_SHARE = 0.4
FREE_CONTENT_SHARE = 0.2
RELATION_SHARE = 0.85
RELATION_SHARE_OF_GROUPS_AND_SIZES = 0.6
# Of two things side by side whose relation is not mentioned otherwise.
BESIDE_SHARE = 0.5
# At 0.5, neither the order of the things nor the word of the relation alone would tell where a thing is: a small model
# does not learn to combine them.
READING_ORDER_SHARE = 0.75

_WRITERS: dict[Language, CaptionWriter] = {"zh": chinese_captions, "en": english_captions}


def captions(
    scene: Scene, rng: random.Random, num: int, language: Language, icon_words: IconWords | None = None
) -> list[str]:
    """Return different captions of a scene.

    Args:
        scene: contents of the picture.
        rng: makes all choices.
        num: of captions; fewer if the scene has not so many.
        language: of the captions.
        icon_words: names of the icon in a scene of kind `icon`.

    Raises:
        UsageError: the scene is a single icon and its words are missing.
    """
    texts: dict[str, None] = {}  # an ordered set
    for _ in range(MAX_ATTEMPTS_PER_CAPTION * num):
        if len(texts) >= num:
            break
        texts[_caption(scene, rng, language, icon_words)] = None
    return list(texts)


def caption_with_content(content: str, scene: Scene, rng: random.Random, language: Language) -> str:
    """Return a caption with a given content, such as "a woman firefighter: dark skin tone".

    Args:
        content: noun phrase of one thing, with its article or measure word.
        scene: with ground and style.
        rng: makes all choices.
        language: of the content.
    """
    return _WRITERS[language].sentence(rng, Content(text=content), *_choices(scene, rng, language))


def _caption(scene: Scene, rng: random.Random, language: Language, icon_words: IconWords | None) -> str:
    choices = _choices(scene, rng, language)
    if scene.kind == "icon":
        if icon_words is None:
            raise UsageError(
                f"the icon {scene.placements[0].code} is not of the table; pass its words as icon_words"
            )
        content = Content(text=_icon_content(icon_words, rng, language))
    else:
        content = _content(scene, rng, _WRITERS[language])
    return _WRITERS[language].sentence(rng, content, *choices)


def _choices(scene: Scene, rng: random.Random, language: Language) -> tuple[str | None, str | None, Manner]:
    """Choose the ground and style to mention, if any, and the manner."""
    ground = scene.ground if rng.random() < GROUND_SHARE else None
    style = rng.choice(STYLE_WORDS[scene.style][language]) if rng.random() < STYLE_SHARE else None
    if rng.random() < FREE_SENTENCE_SHARE:
        return ground, style, "free"
    return ground, style, "led-in" if rng.random() < LEAD_IN_SHARE else "plain"


def _content(scene: Scene, rng: random.Random, writer: CaptionWriter) -> Content:
    """Describe the contents of a scene."""
    things = _in_order(scene)
    counts = Counter(placement.code for placement in scene.placements)
    mentions = [
        Mention(
            thing=scene_objects()[placement.code],
            number=counts[placement.code] if scene.kind in ("count", "groups") else 1,
            colour=placement.colour,
            size=mentioned_size(scene, placement),
            avoids_sizes=scene.kind == "sizes",
        )
        for placement in things
    ]
    nouns = [writer.noun(mention, rng) for mention in mentions]
    is_same = len(counts) == 1
    if is_same:  # twice the same thing: same name
        nouns = [nouns[0]] * len(nouns)
    named = [writer.noun_phrase(mention, noun, rng) for mention, noun in zip(mentions, nouns, strict=True)]
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
        return writer.list_things(rng, named, manner)
    relation = relation_of(*things)[0]
    if rng.random() < (RELATION_SHARE if scene.kind == "relation" else RELATION_SHARE_OF_GROUPS_AND_SIZES):
        if rng.random() >= READING_ORDER_SHARE:
            named.reverse()
            relation = OPPOSITES[relation]
        return writer.relation(rng, named[0], relation, named[1], manner)
    if relation == "left" and rng.random() < BESIDE_SHARE:
        return writer.beside(rng, named[0], named[1])
    return writer.list_things(rng, named, manner)


def _in_order(scene: Scene) -> list[Placement]:
    """Return the things of a scene, or one per group, in reading order."""
    if scene.kind in ("count", "groups"):
        things = group_centres(scene)
    else:
        things = sorted(scene.placements, key=lambda placement: (placement.row, placement.column))
    # Two of different sizes share their lower edge, so that the left one may start further down.
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
