"""What the default data set holds: its splits, styles, sizes and shares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal[
    "train",
    "held-out-composition",
    "held-out-colour",
    "held-out-object",
    "held-out-style",
    "held-out-drawing",
]
Style = Literal["noto", "twemoji", "fluent", "fluent-flat", "fluent-3d", "openmoji", "outlined"]
Language = Literal["zh", "en"]

TRAINING_STYLES: tuple[Style, ...] = ("noto", "twemoji", "fluent", "fluent-flat", "fluent-3d")
# Share-alike art: never in a train split, so that weights trained on the default data carry no such terms.
HELD_OUT_STYLES: tuple[Style, ...] = ("openmoji",)


@dataclass(frozen=True, kw_only=True)
class DefaultDataConfig:
    """The default data set: icons and composed scenes with Chinese and English captions.

    Args:
        num_train: pictures of the train split.
        num_held_out_composition: pictures of known objects in unseen compositions.
        num_held_out_colour: pictures of known objects, one of them at least in a colour in which training never shows
            it, and all else as in training.
        num_held_out_object: pictures that show an object never seen in training.
        num_held_out_style: pictures in the held-out style (openmoji, CC-BY-SA-4.0); 0 leaves its package unfetched.
        num_held_out_drawing: pictures of one known object in the one of the styles in which no other split shows it; 0
            holds no drawing back.
        size_pixels: side of a picture; a multiple of 16.
        styles: the styles of all splits but the held-out style's.
        num_objects: how many train objects of the table to use, from its top.
        languages: languages of the captions.
        captions_per_picture: different captions of each picture, shared among the languages.
        single_cells: side of an object that stands alone, in cells of the 16 x 16 lattice, 7 to 12. Objects in company
            have 7; with 7 here too, a transformer learns each icon at one size only.
        single_share: share of pictures of one object. The seven shares need not add up to 1.
        count_share: share of 2 to `most_counted` copies of an object.
        relation_share: share of two objects, one left of, right of, above or below the other.
        group_share: share of 2-4 different objects.
        icon_share: share of single icons of the whole icon sets, for an image tokenizer that has to draw anything.
        groups_share: share of two groups, each of one to three copies of an object.
        sizes_share: share of two objects of different sizes.
        most_counted: copies of an object at most, 2 to 6; five and six are drawn small.
        sized_share: of the pictures of one object, the share in which it is small or big, and said to be.
        coloured_share: of the things in a scene that may have any colour, the share that has another than its own.
        icon_cells: side of those, in cells, 7 to 12.
        varied_share: share of the training pictures whose icons are turned, mirrored, coloured otherwise and, where
            one is alone, of another size, so that a captioner learns the things and not their pixels. Where captions
            tell colours or sizes, these stay true.
        seed: the data set is a function of this and the fields above.
        format: `image-folder` (images and `metadata.jsonl`) or `webdataset` (tars).
        pictures_per_tar: pictures in each tar.
        num_workers: processes that draw; the bytes don't depend on it.
        packages_folder: a folder with the packages' archives; None fetches them with npm.
    """

    num_train: int = 60_000
    num_held_out_composition: int = 1_000
    num_held_out_colour: int = 0
    num_held_out_object: int = 500
    num_held_out_style: int = 0
    num_held_out_drawing: int = 0
    size_pixels: int = 128
    styles: tuple[Style, ...] = ("noto", "twemoji", "fluent-flat", "fluent-3d")
    num_objects: int = 160
    languages: tuple[Language, ...] = ("zh", "en")
    captions_per_picture: int = 6
    single_cells: int = 12
    single_share: float = 0.2
    count_share: float = 0.15
    relation_share: float = 0.35
    group_share: float = 0.3
    icon_share: float = 0.0
    groups_share: float = 0.0
    sizes_share: float = 0.0
    most_counted: int = 4
    sized_share: float = 0.0
    coloured_share: float = 0.0
    icon_cells: int = 12
    varied_share: float = 0.0
    seed: int = 0
    format: Literal["image-folder", "webdataset"] = "image-folder"
    pictures_per_tar: int = 5_000
    num_workers: int = 2
    packages_folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class StyleDataConfig:
    """Pictures of one style: many to learn from, and others of objects that are not among them.

    Args:
        style: whose art, of those that the model to be finetuned does not draw. openmoji is under CC-BY-SA-4.0, so the
            pictures are too; fluent-3d, soft renderings, is under MIT and told as "3D style".
        num_train: pictures of the train split in the style, each captioned with its object, "A cat of openmoji style".
        num_other_icons: so many of them show other icons, one each, captioned with their labels: what a style is shows
            in many drawings, and a few would be learnt by heart. The rest show objects that the model knows.
        num_ordinary: more pictures of the train split, of all known objects in the styles in which they are known,
            captioned alike, "A cat of twemoji style": what changes with the style is learnt, what does not is kept.
        num_other_ordinary: still more of them, of the other icons in the known styles: the same thing in several.
        num_held_out: pictures of the held-out split, captioned alike.
        num_held_out_objects: objects that only the held-out split shows, so many of the first `num_known_objects`.
        num_known_objects: train objects, from the top of the table, that the model to be finetuned knows in other
            styles; the train split shows those that are not held out.
        known_styles: of the ordinary pictures. "outlined" is twemoji's art with black lines, the same things in another
            manner: what a manner is can be learnt from it, where a style's own drawings differ in all else too. Of a
            style that the model knows a sister of, as fluent-flat is of fluent-3d, the sister does: its shapes are the
            same.
        unnamed_share: share of the training pictures whose captions leave the style out, "A cat": the words for a
            style then add to what an object's name says, and do not stand for other drawings by themselves.
        varied_share: share of the training pictures whose icon is turned, mirrored and coloured otherwise.
        size_pixels: side of a picture; a multiple of 16.
        style_cells: side of an icon in the style, in cells of the 16 x 16 lattice, 1 to 14; the style's art fills four
            fifths of it.
        object_cells: side of an icon in a known style.
        seed: the pictures are a function of this and the fields above.
        packages_folder: a folder with the packages' archives; None fetches them with npm.
    """

    style: Style = "openmoji"
    num_train: int = 1_000
    num_other_icons: int = 0
    num_ordinary: int = 1_600
    num_other_ordinary: int = 0
    num_held_out: int = 200
    num_held_out_objects: int = 20
    num_known_objects: int = 80
    known_styles: tuple[Style, ...] = ("outlined",)
    unnamed_share: float = 0.4
    varied_share: float = 0.0
    size_pixels: int = 128
    style_cells: int = 9
    object_cells: int = 7
    seed: int = 0
    packages_folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PeopleDataConfig:
    """Pictures of people, one each, in each gender and skin tone: far more of some than of others, as on the web.

    Args:
        people: who is shown, by English name; `cogview.world.people.PEOPLE` has all that there are.
        num_train: pictures of the train split.
        num_held_out: pictures of the held-out split, in which each icon comes equally often, on a ground on which the
            train split never shows it.
        man_share: the share of men in the train split, 0 to 1.
        light_share: the share of the two lightest of the five skin tones in the train split, 0 to 1, whatever the
            gender.
        styles: the styles of both splits.
        size_pixels: side of a picture; a multiple of 16.
        object_cells: side of the person, in cells of the 16 x 16 lattice, 1 to 14.
        seed: the pictures are a function of this and the fields above.
        packages_folder: a folder with the packages' archives; None fetches them with npm.
    """

    people: tuple[str, ...] = (
        "firefighter",
        "farmer",
        "cook",
        "health worker",
        "judge",
        "pilot",
        "teacher",
        "astronaut",
        "police officer",
        "construction worker",
        "person",
        "child",
    )
    num_train: int = 12_000
    num_held_out: int = 480
    man_share: float = 0.8
    light_share: float = 0.7
    styles: tuple[Style, ...] = ("twemoji", "fluent-flat")
    size_pixels: int = 128
    object_cells: int = 12
    seed: int = 0
    packages_folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ClothingDataConfig:
    """Pictures of clothing: Fashion-MNIST, 70,000 grey pictures of 28 x 28 pixels in ten classes.

    Args:
        source: the folder with the package's four .gz files; by default where Debian's package installs them.
        fetch: fetch the package dataset-fashion-mnist with apt-get into a temporary folder, and ignore `source`.
        num_train: pictures of the train split, at most 60,000.
        num_held_out: pictures of the held-out split, from the package's own test pictures, at most 10,000.
        size_pixels: side of a picture; a multiple of 32 upscales by a whole number.
    """

    source: Path = Path("/usr/share/datasets/fashion-mnist")
    fetch: bool = False
    num_train: int = 20_000
    num_held_out: int = 1_000
    size_pixels: int = 64
