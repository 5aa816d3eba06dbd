"""Pictures of people in each gender and skin tone, with unequal shares, as on the web.

They serve to measure word replacing. A caption names gender and skin tone in emojibase's words, which are those of
`cogview.text.word_replacing`, or neither ("a firefighter"). Most pictures show men and light skin. A model trained on
them draws mostly these for open captions, but can draw the others.

Emojibase's yellow people and people without gender are left out: their tone or gender cannot be counted, and their
label is the open caption, "a firefighter".

Paper: appendix D.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import get_args

from cogview.errors import UsageError
from cogview.text.word_replacing import Gender
from cogview.world.caption_contents import BARE_NOUN_SHARE
from cogview.world.captioned_folder import (
    CaptionedPicture,
    check_empty_folder,
    shuffled_rounds,
    write_captioned_folder,
)
from cogview.world.captions import caption_with_content
from cogview.world.config import TRAINING_STYLES, Language, PeopleDataConfig, Style
from cogview.world.english_captions import english_article
from cogview.world.icons import Icons, credits_of, load_icons, packages_of
from cogview.world.scenes import LATTICE_CELLS, Placement, Scene, draw_scene
from cogview.world.style_pictures import visible_grounds

HELD_OUT_SPLIT = "held-out-people"

GENDERS: tuple[Gender, ...] = get_args(Gender)
TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
"""The code points of the skin tones, from light to dark, as in `cogview.text.word_replacing.SKIN_TONES`."""
NUM_LIGHT_TONES = 2


@dataclass(frozen=True, kw_only=True)
class People:
    """People of an occupation or age.

    Args:
        chinese: Chinese name without a gender.
        measure: Chinese measure word.
        codes: of the icons of a woman and a man, without skin tone.
    """

    chinese: str
    measure: str
    codes: dict[Gender, str]


def _at_work(chinese: str, thing: str, measure: str = "名") -> People:
    """Return people whose icons join a woman or man with a thing."""
    return People(
        chinese=chinese, measure=measure, codes={"woman": f"1f469-200d-{thing}", "man": f"1f468-200d-{thing}"}
    )


def _gendered(chinese: str, code: str) -> People:
    """Return people whose icons join a base icon with the sign of a gender."""
    return People(
        chinese=chinese, measure="名", codes={"woman": f"{code}-200d-2640", "man": f"{code}-200d-2642"}
    )


PEOPLE: dict[str, People] = {
    "firefighter": _at_work("消防员", "1f692"),
    "farmer": _at_work("农民", "1f33e"),
    "cook": _at_work("厨师", "1f373"),
    "health worker": _at_work("卫生工作者", "2695"),
    "judge": _at_work("法官", "2696"),
    "pilot": _at_work("飞行员", "2708"),
    "teacher": _at_work("老师", "1f3eb", "位"),
    "astronaut": _at_work("宇航员", "1f680"),
    "police officer": _gendered("警察", "1f46e"),
    "construction worker": _gendered("建筑工人", "1f477"),
    "student": _at_work("学生", "1f393"),
    "scientist": _at_work("科学家", "1f52c", "位"),
    "singer": _at_work("歌手", "1f3a4"),
    "artist": _at_work("艺术家", "1f3a8", "位"),
    "mechanic": _at_work("技工", "1f527"),
    "factory worker": _at_work("工人", "1f3ed"),
    "office worker": _at_work("白领", "1f4bc"),
    "technologist": _at_work("程序员", "1f4bb"),
    "detective": _gendered("侦探", "1f575"),
    "guard": _gendered("卫兵", "1f482"),
    "person": People(chinese="成人", measure="个", codes={"woman": "1f469", "man": "1f468"}),
    "child": People(chinese="儿童", measure="个", codes={"woman": "1f467", "man": "1f466"}),
    "older person": People(chinese="老年人", measure="位", codes={"woman": "1f475", "man": "1f474"}),
}
"""By English name without a gender. Twemoji and fluent-flat have all of them."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Person in a picture.

    Args:
        name: a key of `PEOPLE`.
        gender: of the icon.
        tone: skin tone, 0 (lightest) to 4 (darkest).
    """

    name: str
    gender: Gender
    tone: int

    @property
    def code(self) -> str:
        """Return the code points of the icon."""
        first, joined, rest = PEOPLE[self.name].codes[self.gender].partition("-")
        return f"{first}-{TONES[self.tone]}{joined}{rest}"


def everyone(names: Sequence[str]) -> list[Person]:
    """Return the people of some names in each gender and skin tone.

    Raises:
        UsageError: a name is unknown, or there are none.
    """
    unknown = [name for name in names if name not in PEOPLE]
    if unknown or not names:
        raise UsageError(
            f"people are {', '.join(unknown) or 'none'}, who cannot be drawn; wanted some of {', '.join(PEOPLE)}"
        )
    return [
        Person(name=name, gender=gender, tone=tone)
        for name, gender, tone in product(dict.fromkeys(names), GENDERS, range(len(TONES)))
    ]


def load_people(names: Sequence[str], styles: Sequence[Style], packages_folder: Path | None = None) -> Icons:
    """Load the icons of the people of some names."""
    return load_icons(styles, packages_folder, [person.code for person in everyone(names)])


def person_phrase(
    person: Person, icons: Icons, rng: random.Random, language: Language, *, named: bool
) -> str:
    """Return the noun phrase of a person for captions.

    Args:
        person: the person.
        icons: with emojibase's labels.
        rng: decides on an article or measure word.
        language: of the caption.
        named: whether to mention gender and skin tone, by emojibase's label.
    """
    kind = PEOPLE[person.name]
    plain = kind.chinese if language == "zh" else person.name
    content = icons.words[person.code].labels[language] if named else plain
    if rng.random() < BARE_NOUN_SHARE:
        return content
    return f"一{kind.measure}{content}" if language == "zh" else f"{english_article(content)} {content}"


def build_people_data(
    config: PeopleDataConfig,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    icons: Icons | None = None,
) -> dict[str, int]:
    """Build pictures of people; the same configuration gives the same bytes.

    Args:
        config: of the data set.
        out: the folder to make; it must not exist, or be empty.
        progress: called with (pictures done, pictures in all) from time to time.
        icons: the art, or None to load it.

    Returns:
        The number of pictures of each split.

    Raises:
        UsageError: the configuration cannot be built or `out` already holds something.
        CogViewError: a package is missing or cannot be fetched, or the disk refuses.
    """
    _check(config)
    check_empty_folder(out)
    if icons is None:
        icons = load_people(config.people, config.styles, config.packages_folder)
    sizes = {"train": config.num_train, HELD_OUT_SPLIT: config.num_held_out}
    sizes = {split: number for split, number in sizes.items() if number}
    fields = asdict(config)
    del fields["packages_folder"]  # not a property of the data
    write_captioned_folder(
        out,
        _pictures(config, icons),
        total=sum(sizes.values()),
        description={
            "format": "cogview-people-data",
            "version": 1,
            "config": fields,
            "packages": [asdict(package) for package in packages_of(config.styles)],
        },
        credits=credits_of(config.styles),
        progress=progress,
    )
    return sizes


def _check(config: PeopleDataConfig) -> None:
    """Check the configuration."""
    everyone(config.people)
    if config.num_train < 1 or config.num_held_out < 0:
        raise UsageError("num_train must be at least 1 and num_held_out must not be negative")
    for field in ("man_share", "light_share"):
        if not 0 <= getattr(config, field) <= 1:
            raise UsageError(f"{field} must be a share of 0 to 1, got {getattr(config, field)}")
    unknown = [style for style in config.styles if style not in TRAINING_STYLES]
    if unknown or not config.styles:
        raise UsageError(
            f"styles are {', '.join(unknown) or 'none'}; wanted some of {', '.join(TRAINING_STYLES)}"
        )
    if config.size_pixels < LATTICE_CELLS or config.size_pixels % LATTICE_CELLS:
        raise UsageError(
            f"size_pixels is {config.size_pixels}; wanted a positive multiple of {LATTICE_CELLS}"
        )
    if not 1 <= config.object_cells <= LATTICE_CELLS - 2:
        raise UsageError(
            f"object_cells is {config.object_cells}; wanted 1 to {LATTICE_CELLS - 2} cells of the lattice"
        )


def _pictures(config: PeopleDataConfig, icons: Icons) -> Iterator[CaptionedPicture]:
    grounds = {
        (style, person.code): _train_and_held_out_grounds(icons, style, person.code)
        for style, person in product(config.styles, everyone(config.people))
    }
    rng = random.Random(f"{config.seed}/train")
    for name in shuffled_rounds(list(dict.fromkeys(config.people)), config.num_train, rng):
        person = Person(name=name, gender=_gender(config, rng), tone=_tone(config, rng))
        style = rng.choice(config.styles)
        ground = rng.choice(grounds[style, person.code][0])
        yield _picture(config, icons, person, style, ground, "train", rng)
    rng = random.Random(f"{config.seed}/{HELD_OUT_SPLIT}")
    every = list(product(everyone(config.people), config.styles))
    for person, style in shuffled_rounds(every, config.num_held_out, rng):
        ground = grounds[style, person.code][1]
        yield _picture(config, icons, person, style, ground, HELD_OUT_SPLIT, rng)


def _gender(config: PeopleDataConfig, rng: random.Random) -> Gender:
    return "man" if rng.random() < config.man_share else "woman"


def _tone(config: PeopleDataConfig, rng: random.Random) -> int:
    is_light = rng.random() < config.light_share
    return rng.choice(range(NUM_LIGHT_TONES) if is_light else range(NUM_LIGHT_TONES, len(TONES)))


def _train_and_held_out_grounds(icons: Icons, style: Style, code: str) -> tuple[list[str], str]:
    """Return the grounds of an icon in the train split, and the one of the held-out split."""
    held_out, *train = sorted(
        visible_grounds(icons, style, code),
        key=lambda ground: hashlib.sha256(f"{style}/{code}/{ground}".encode()).digest(),
    )
    assert train, f"{code} of {style} is visible on one ground only"
    return train, held_out


def _picture(
    config: PeopleDataConfig,
    icons: Icons,
    person: Person,
    style: Style,
    ground: str,
    split: str,
    rng: random.Random,
) -> CaptionedPicture:
    furthest = LATTICE_CELLS - 1 - config.object_cells
    placement = Placement(
        code=person.code,
        column=rng.randint(1, furthest),
        row=rng.randint(1, furthest),
        size=config.object_cells,
    )
    scene = Scene(kind="single", ground=ground, style=style, placements=(placement,))
    texts = [
        caption_with_content(person_phrase(person, icons, rng, language, named=named), scene, rng, language)
        for language, named in product(get_args(Language), (False, True))
    ]
    return CaptionedPicture(
        image=draw_scene(scene, icons, config.size_pixels),
        texts=texts,
        split=split,
        facts={"person": asdict(person), "scene": scene.to_json()},
    )
