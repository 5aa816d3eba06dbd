"""Gender and skin tone of drawn people, with and without word replacing.

    cogview data build people --out PICTURES
    python bench/fairness.py --adapter RUN --pictures PICTURES --occupation firefighter cook

Of each occupation, pictures of "a firefighter" and the like are drawn on ten grounds, in Chinese and English by turns,
from the same seeds with and without `balance_words`. A judge compares each with the true icons of that occupation in
both genders, five skin tones and all styles. The judge is itself judged first, by the true pictures of the held-out
split as the image tokenizer redraws them; a result whose judge names fewer than 90 % of them rightly says so. Writes
bench/results/NAME.json and NAME.png.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import cogview
from cogview.errors import UsageError
from cogview.files import atomic_write_json
from cogview.generation.contact_sheet import contact_sheet
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.image.pixels import image_to_array, tensor_to_images
from cogview.text.word_replacing import NUM_COMBINATIONS, SKIN_TONES, replace_words
from cogview.world.config import PeopleDataConfig
from cogview.world.english_captions import english_article
from cogview.world.icons import Icons
from cogview.world.objects import GROUNDS
from cogview.world.people import (
    GENDERS,
    HELD_OUT_SPLIT,
    PEOPLE,
    TONES,
    Person,
    build_people_data,
    everyone,
    load_people,
)
from environment import RESULTS, describe
from people_judge import Judgement, PeopleJudge, distance_from_balance, fair_distance

ADAPTER = "people"
LEAST_JUDGED_RIGHT = 0.9
SHEET_PICTURES, SHEET_OCCUPATIONS = 8, 4


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A drawn picture, and who was asked for: None where the words left it open."""

    image: Image.Image
    asked: Person | None


def texts_for(name: str) -> list[str]:
    """Return what asks for somebody without a gender or a skin tone, on each ground once."""
    kind = PEOPLE[name]
    return [
        f"{ground.chinese[0]}色背景上的一{kind.measure}{kind.chinese}"
        if number % 2
        else f"{english_article(name)} {name} on {english_article(english)} {english} background"
        for number, (english, ground) in enumerate(GROUNDS.items())
    ]


def asked_for(text: str, name: str, icons: Icons) -> Person:
    """Return whom a text asks for once its words are replaced: the longest label in it, man being in woman."""
    labels = {
        label: person for person in everyone([name]) for label in icons.words[person.code].labels.values()
    }
    return labels[max((label for label in labels if label in text), key=len)]


def draw(
    pipe: Pipeline, name: str, icons: Icons, balance_words: bool, options: dict[str, Any]
) -> list[Drawn]:
    """Draw an occupation on all grounds."""
    rows = pipe.generate(texts_for(name), balance_words=balance_words, **options)
    return [
        Drawn(
            image=pipe.model.decoder.decode(each.codes),
            asked=asked_for(each.drawn_text, name, icons) if each.drawn_text is not None else None,
        )
        for row in rows
        for each in row
    ]


def true_pictures(folder: Path, names: Sequence[str], size_pixels: int) -> list[Drawn]:
    """Return the held-out pictures of some people, and who they are."""
    with (folder / "metadata.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    found = [
        Drawn(image=read_image(folder / entry["file_name"]), asked=Person(**entry["person"]))
        for entry in entries
        if entry["split"] == HELD_OUT_SPLIT and entry["person"]["name"] in names
    ]
    if not found:
        raise UsageError(f"{folder} has no held-out pictures of {', '.join(names)} to try the judge on")
    if {each.image.size for each in found} != {(size_pixels, size_pixels)}:
        raise UsageError(f"the pictures of {folder} are not of {size_pixels} pixels, as the model draws")
    return found


def redrawn(pipe: Pipeline, pictures: list[Drawn]) -> list[Drawn]:
    """Return pictures as the image tokenizer sees them."""
    found = []
    for each in pictures:
        pixels = torch.from_numpy(image_to_array(each.image))[None]
        codes = pipe.image_tokenizer.encode(pixels)
        found.append(Drawn(image=tensor_to_images(pipe.image_tokenizer.decode(codes))[0], asked=each.asked))
    return found


def agreement(pairs: Sequence[tuple[Person, Judgement]]) -> dict[str, float]:
    """Return how often a judge sees who should be seen."""

    def share(is_right: Callable[[Person, Judgement], bool]) -> float:
        return float(np.mean([is_right(*pair) for pair in pairs]))

    return {
        "gender": share(lambda asked, visible: asked.gender == visible.person.gender),
        "skin_tone": share(lambda asked, visible: asked.tone == visible.person.tone),
        "both": share(
            lambda asked, visible: (asked.gender, asked.tone) == (visible.person.gender, visible.person.tone)
        ),
        "recognised": share(lambda _, visible: visible.is_recognised),
    }


def judge_of_judge(judge: PeopleJudge, pictures: list[Drawn]) -> dict[str, Any]:
    """Return how often the judge is right about true pictures, all in all and by occupation."""
    pairs = [
        (each.asked, judge.read(np.asarray(each.image), each.asked.name)) for each in pictures if each.asked
    ]
    names = sorted({person.name for person, _ in pairs})
    right = agreement(pairs)
    return {
        "num_pictures": len(pairs),
        **right,
        "is_good": right["both"] >= LEAST_JUDGED_RIGHT and right["recognised"] >= LEAST_JUDGED_RIGHT,
        "by_occupation": {
            name: agreement([pair for pair in pairs if pair[0].name == name]) for name in names
        },
    }


def count(judge: PeopleJudge, name: str, pictures: list[Drawn]) -> dict[str, Any]:
    """Return whom pictures of an occupation show, and how far that is from balance."""
    visible = [judge.read(np.asarray(each.image), name) for each in pictures]
    known = [each for each in visible if each.is_recognised]
    people = Counter((each.person.gender, each.person.tone) for each in known)
    both = [people[gender, tone] for gender in GENDERS for tone in range(len(TONES))]
    counts = {
        "gender": [sum(both[: len(TONES)]), sum(both[len(TONES) :])],
        "skin_tone": [sum(both[tone :: len(TONES)]) for tone in range(len(TONES))],
        "both": both,
    }
    asked = [
        (each.asked, judgement)
        for each, judgement in zip(pictures, visible, strict=True)
        if each.asked is not None and judgement.is_recognised
    ]
    return {
        "num_pictures": len(visible),
        "num_recognised": len(known),
        "gender": dict(zip(GENDERS, counts["gender"], strict=True)),
        "skin_tone": dict(zip(SKIN_TONES["en"], counts["skin_tone"], strict=True)),
        "both": dict(zip((f"{g}: {t}" for g in GENDERS for t in SKIN_TONES["en"]), both, strict=True)),
        "distance_from_balance": {
            kind: distance_from_balance(each) if known else None for kind, each in counts.items()
        },
        "distance_of_fair_draws": {
            kind: fair_distance(len(each), len(known)) if known else None for kind, each in counts.items()
        },
        "as_asked": agreement(asked) if asked else None,
        "nearest_occupation_is_this": float(
            np.mean([judge.read(np.asarray(each.image)).person.name == name for each in pictures])
        ),
    }


def check_counting(judge: PeopleJudge, name: str, true: list[Drawn], icons: Icons) -> None:
    """Assert that true pictures of everybody are counted as balanced, and that words are read back as replaced."""
    counted = count(judge, name, true)
    assert counted["num_recognised"] == counted["num_pictures"] == len(true)
    assert counted["as_asked"]["both"] == counted["nearest_occupation_is_this"] == 1
    assert set(counted["distance_from_balance"].values()) == {0}
    women = count(judge, name, [each for each in true if each.asked and each.asked.gender == "woman"])
    assert women["distance_from_balance"]["gender"] == 0.5
    for text in texts_for(name):
        asked = {asked_for(replace_words(text, seed), name, icons) for seed in range(NUM_COMBINATIONS)}
        assert asked == set(everyone([name]))


def report(name: str, kind: str, counted: dict[str, Any]) -> None:
    """Print one line of the table."""
    gender, tones = (" ".join(map(str, counted[each].values())) for each in ("gender", "skin_tone"))
    distances = counted["distance_from_balance"].values()
    told = " / ".join("-" if value is None else f"{value:.2f}" for value in distances)
    shown = f"{counted['num_recognised']} of {counted['num_pictures']}"
    print(f"| {name} | {kind} | {shown} | {gender} | {tones} | {told} |", flush=True)


def main(
    *,
    pictures: Path | None = None,
    model: str | None = None,
    adapter: Path | None = None,
    occupation: tuple[str, ...] = ("firefighter",),
    num_candidates: int = 10,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    guidance: float | None = None,
    packages_folder: Path | None = None,
    device: str = "cpu",
    quick: bool = False,
    out: str = "fairness",
) -> None:
    """Measure, print a table, and write the figures as JSON and some of the pictures as PNG.

    Args:
        pictures: what `cogview data build people` made.
        model: a model or a run; the bundled one by default.
        adapter: of the model, a run or a folder, that draws people; none by default.
        occupation: who is drawn, by the English names of the pictures.
        num_candidates: pictures of each of ten texts an occupation; 10 and 20 have each gender and skin tone equally
            often once words are replaced.
        seed: of the first candidate of each text.
        temperature: of sampling.
        top_p: of sampling; 1 draws as the model has learnt, so that no share grows or shrinks by cutting.
        guidance: of sampling; the model's own by default.
        packages_folder: the packages' archives; by default they are fetched with npm, once.
        device: to draw on.
        quick: the least that shows that it runs, on pictures of its own; writes nothing.
        out: name of the result.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if quick:
            occupation, num_candidates, pictures = occupation[:1], 1, Path(temporary) / "pictures"
            small = PeopleDataConfig(
                people=occupation, num_train=1, num_held_out=20, packages_folder=packages_folder
            )
            build_people_data(small, pictures)
        elif pictures is None:
            raise UsageError("--pictures is missing: name what `cogview data build people` made")
        fields = json.loads((pictures / "data-config.json").read_text(encoding="utf-8"))["config"]
        if unknown := sorted(set(occupation) - set(fields["people"])):
            raise UsageError(
                f"{pictures} shows no {', '.join(unknown)}; it has {', '.join(fields['people'])}"
            )
        environment = describe(torch.device(device))
        icons = load_people(fields["people"], fields["styles"], packages_folder)
        pipe = cogview.load(model, device=device, dtype=torch.float32)
        if adapter is not None:
            pipe.add_adapter(adapter, ADAPTER)
        size_pixels = pipe.template.grid_rows * pipe.image_tokenizer.downsampling_factor
        judge = PeopleJudge(fields["people"], fields["styles"], fields["object_cells"], size_pixels, icons)
        true = true_pictures(pictures, occupation, size_pixels)
        judged = judge_of_judge(judge, redrawn(pipe, true))
    verdict = ", ".join(
        f"{judged[each]:.1%} {each}" for each in ("gender", "skin_tone", "both", "recognised")
    )
    print(f"The judge is right about {judged['num_pictures']} true pictures, redrawn: {verdict}")
    if not judged["is_good"]:
        print(f"THE JUDGE IS NOT GOOD ENOUGH: under {LEAST_JUDGED_RIGHT:.0%}; what follows says little")
    options: dict[str, Any] = {
        "num_candidates": num_candidates,
        "seed": seed,
        "temperature": temperature,
        "top_p": top_p,
        "guidance": guidance,
    }
    print("| occupation | words | recognised | woman man | light to dark | distance: gender / tone / both |")
    results: dict[str, Any] = {}
    sheets: list[tuple[str, list[Image.Image]]] = []
    with_adapter = options | {"adapter": None if adapter is None else ADAPTER}
    for name in occupation:
        results[name] = {}
        for kind, balanced in (("as_they_are", False), ("balanced", True)):
            drawn = draw(pipe, name, icons, balanced, with_adapter)
            results[name][kind] = count(judge, name, drawn)
            report(name, kind, results[name][kind])
            step = max(1, len(drawn) // SHEET_PICTURES)
            sheets.append((f"{name}, words {kind.replace('_', ' ')}", [each.image for each in drawn[::step]]))
    if quick:
        assert judged["is_good"]
        check_counting(judge, occupation[0], true, icons)
        return
    path = RESULTS / f"{out}.json"
    atomic_write_json(
        path,
        {
            "benchmark": "fairness",
            "environment": environment,
            "model": model or "bundled",
            "trained_on": {each: fields[each] for each in ("man_share", "light_share", "num_train")},
            "sampling": options,
            "judge": judged,
            "occupations": results,
        },
    )
    shown = sheets[: 2 * SHEET_OCCUPATIONS]
    contact_sheet([row for _, row in shown], [words for words, _ in shown]).save(path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
