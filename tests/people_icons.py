"""Icons of people made up for tests: emojibase's labels, and art that shows gender and skin tone and little else."""

from collections.abc import Sequence

from cogview.text.word_replacing import SKIN_TONES
from cogview.world.config import Style
from cogview.world.icons import Icons, IconWords
from cogview.world.people import PEOPLE, Person, everyone

_SKIN = ("#f7dece", "#f3d2a2", "#d5ab88", "#af7e57", "#7c533e")
_ENGLISH = {"person": ("woman", "man"), "child": ("girl", "boy"), "older person": ("old woman", "old man")}
_CHINESE = {
    "person": ("女人", "男人"),
    "child": ("女孩", "男孩"),
    "older person": ("老奶奶", "老爷爷"),
    "farmer": ("农妇", "农夫"),
    "health worker": ("女医生", "男医生"),
}


def people_icons(names: Sequence[str], styles: Sequence[Style]) -> Icons:
    """Return icons of those of some names in each gender and skin tone, all of them different."""
    people = everyone(names)
    art = {
        style: {person.code: _art(person, number) for person in people} for number, style in enumerate(styles)
    }
    words = {
        person.code: IconWords(
            labels={"en": _english(person), "zh": _chinese(person)}, tags={"en": (), "zh": ()}
        )
        for person in people
    }
    return Icons(art, words)


def _english(person: Person) -> str:
    women_and_men = _ENGLISH.get(person.name, (f"woman {person.name}", f"man {person.name}"))
    return f"{women_and_men[person.gender == 'man']}: {SKIN_TONES['en'][person.tone]}"


def _chinese(person: Person) -> str:
    name = PEOPLE[person.name].chinese
    women_and_men = _CHINESE.get(person.name, (f"女{name}", f"男{name}"))
    return f"{women_and_men[person.gender == 'man']}: {SKIN_TONES['zh'][person.tone]}"


def _art(person: Person, number: int) -> str:
    """Return a face on a coat of the occupation, with long hair if it is a woman's."""
    coat = f"hsl({list(PEOPLE).index(person.name) * 15}, 60%, {30 + 30 * number}%)"
    hair = '<rect x="3" y="1" width="10" height="10" fill="#421"/>' if person.gender == "woman" else ""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16">'
        f'<rect x="2" y="10" width="12" height="6" fill="{coat}"/>{hair}'
        f'<rect x="5" y="2" width="6" height="8" fill="{_SKIN[person.tone]}"/></svg>'
    )
