"""Configuration of the synthetic data sets. Does not import PyTorch."""

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
# Share-alike licence: kept out of train splits, so that it does not extend to weights trained on the default data.
HELD_OUT_STYLES: tuple[Style, ...] = ("openmoji",)


@dataclass(frozen=True, kw_only=True)
class DefaultDataConfig:
    """The default data set: icons and composed scenes with Chinese and English captions.

    Args:
        num_train: pictures of the train split.
        num_held_out_composition: pictures of known objects in unseen compositions.
        num_held_out_colour: pictures of known objects, at least one in a colour in which training never shows it;
            everything else as in training.
        num_held_out_object: pictures that show an object never seen in training.
        num_held_out_style: pictures in the held-out style (openmoji, CC-BY-SA-4.0); with 0 its package is not fetched.
        num_held_out_drawing: pictures of one known object in the style in which no other split shows it; with 0 no
            style of an object is held out.
        size_pixels: side of a picture; a multiple of 16.
        styles: of all splits except the held-out style's.
        num_objects: train objects to use, from the top of the table.
        languages: of the captions.
        captions_per_picture: different captions of each picture, divided among the languages.
        single_cells: side of a single object, in cells of the 16 x 16 lattice, 7 to 12. Objects in groups have 7; with
            7 here, too, a transformer learns each icon at one size only.
        single_share: share of pictures of one object. The seven shares need not add up to 1.
        count_share: share of 2 to `most_counted` copies of an object.
        relation_share: share of two objects, one left of, right of, above or below the other.
        group_share: share of 2-4 different objects.
        icon_share: share of single icons from the complete icon sets, for a general image tokenizer.
        groups_share: share of two groups, each of one to three copies of an object.
        sizes_share: share of two objects of different sizes.
        most_counted: largest number of copies of an object, 2 to 6; five and six are drawn small.
        sized_share: of the pictures of one object, the share in which it is small or big and captioned so.
        coloured_share: of the things in a scene that may have any colour, the share with another than their own.
        icon_cells: side of icons of `icon_share`, in cells, 7 to 12.
        varied_share: share of training pictures with augmented icons: rotated, mirrored, recoloured, and resized if
            single, so that a captioner does not memorize pixels. Colours and sizes in captions stay true.
        seed: the data set is a function of this and the fields above.
        format: `image-folder` (images and `metadata.jsonl`) or `webdataset` (tars).
        pictures_per_tar: pictures in each tar.
        num_workers: drawing processes; the bytes do not depend on it.
        packages_folder: a folder with the packages' archives; by default they are fetched with npm.
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
    """Pictures to finetune a model on a style, and held-out pictures to measure it.

    Args:
        style: a style that the model does not know. openmoji is under CC-BY-SA-4.0, and so are pictures of it;
            fluent-3d, soft renderings, is under MIT and called "3D style" in captions.
        num_train: pictures of the train split in the style, captioned with their object: "A cat of openmoji style".
        num_other_icons: of `num_train`, pictures of other icons, one each, captioned with their labels. Many different
            drawings show what the style is; a few would be memorized. The rest show objects that the model knows.
        num_ordinary: further training pictures, of all known objects in known styles, captioned alike: "A cat of
            twemoji style". They separate the style from the object.
        num_other_ordinary: further training pictures, of the other icons in the known styles.
        num_held_out: pictures of the held-out split, captioned alike.
        num_held_out_objects: objects of the held-out split alone, among the first `num_known_objects`.
        num_known_objects: train objects, from the top of the table, that the model knows in other styles; the train
            split shows those that are not held out.
        known_styles: of the ordinary pictures. "outlined" is twemoji's art with black lines: it differs in style alone,
            where other styles also differ in their drawings. For a style with a known sister, as fluent-flat is of
            fluent-3d, take the sister: its shapes are the same.
        unnamed_share: share of the training pictures whose captions omit the style, "A cat": words for a style then
            modify an object's name, and do not by themselves stand for other drawings.
        varied_share: share of the training pictures whose icon is rotated, mirrored and recoloured.
        size_pixels: side of a picture; a multiple of 16.
        style_cells: side of an icon in the style, in cells of the 16 x 16 lattice, 1 to 14; the style's art fills four
            fifths of it.
        object_cells: side of an icon in a known style.
        seed: the pictures are a function of this and the fields above.
        packages_folder: a folder with the packages' archives; by default they are fetched with npm.
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
    """Pictures of single people in each gender and skin tone, with unequal shares, as on the web.

    Args:
        people: keys of `cogview.world.people.PEOPLE`.
        num_train: pictures of the train split.
        num_held_out: pictures of the held-out split, in which each icon is equally frequent, on a ground on which the
            train split never shows it.
        man_share: share of men in the train split, 0 to 1.
        light_share: share of the two lightest of the five skin tones in the train split, 0 to 1.
        styles: of both splits.
        size_pixels: side of a picture; a multiple of 16.
        object_cells: side of the person, in cells of the 16 x 16 lattice, 1 to 14.
        seed: the pictures are a function of this and the fields above.
        packages_folder: a folder with the packages' archives; by default they are fetched with npm.
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
    """Pictures of clothing from Fashion-MNIST, 70,000 grey pictures of 28 x 28 pixels in ten classes.

    Args:
        source: folder with the four .gz files; by default where Debian's package installs them.
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
