"""Recipes of data sets: default data for the other recipes, styles, people and clothing."""

from dataclasses import replace

from cogview.recipes.config import DataRecipe
from cogview.world.config import (
    TRAINING_STYLES,
    ClothingDataConfig,
    DefaultDataConfig,
    PeopleDataConfig,
    StyleDataConfig,
)


def _scenes_of(recipe: DataRecipe) -> DefaultDataConfig:
    """Return a recipe's configuration of default data."""
    assert isinstance(recipe.data, DefaultDataConfig)
    return recipe.data


def bundled() -> DataRecipe:
    """Scenes of a small world, for the transformer that ships.

    Claim: 80 objects in two flat styles on ten grounds, which two hours of two cores can learn to draw.
    Command: cogview data build bundled --out PICTURES
    Cost: about a minute and 0.2 GB of disk on 2 CPU cores.
    """
    return DataRecipe(
        data=DefaultDataConfig(
            num_train=40_000,
            num_held_out_composition=1_000,
            num_held_out_object=500,
            num_objects=80,
            styles=("twemoji", "fluent-flat"),
            single_cells=7,
            single_share=0.3,
            count_share=0.15,
            relation_share=0.35,
            group_share=0.2,
        )
    )


def bundled_captions() -> DataRecipe:
    """Scenes of the bundled model's objects in four styles and icons of all kinds, for captioning.

    Claim: 80 objects, each held out in one of the styles, to measure captions of unseen drawings. Two pictures in five
    show another icon, which teaches what a thing has in common in several styles, and nearly half show one known thing;
    in most training pictures icons are rotated, mirrored, recoloured and, if single, of any size from 7 cells to 12.
    Command: cogview data build bundled-captions --out PICTURES
    Cost: five minutes and 1 GB of disk on 2 CPU cores.
    """
    data = _scenes_of(bundled())
    return DataRecipe(
        data=replace(
            data,
            num_train=120_000,
            num_held_out_object=0,
            num_held_out_drawing=500,
            styles=DefaultDataConfig.styles,
            single_share=0.7,
            count_share=0.04,
            relation_share=0.12,
            group_share=0.08,
            single_cells=12,
            icon_share=0.6,
            varied_share=0.85,
            seed=2,
        )
    )


def bundled_large() -> DataRecipe:
    """Scenes as those of `bundled` on 512 x 512 pixels, for learning super-resolution.

    Claim: tokenized at 128, 256 and 512 pixels they are pairs of whole pictures and of windows.
    Command: cogview data build bundled-large --out PICTURES
    Cost: half a minute and 0.1 GB of disk on 2 CPU cores.
    """
    data = _scenes_of(bundled())
    return DataRecipe(
        data=replace(
            data, num_train=3_000, num_held_out_composition=200, num_held_out_object=10, size_pixels=512
        )
    )


def bundled_image_tokenizer() -> DataRecipe:
    """Scenes and single icons of all kinds, for the image tokenizer that ships.

    Claim: every icon of the training split in four styles, so that unseen icons are drawn well too.
    Command: cogview data build bundled-image-tokenizer --out PICTURES
    Cost: about a minute and 0.4 GB of disk on 2 CPU cores.
    """
    return DataRecipe(
        data=DefaultDataConfig(
            num_train=30_000,
            num_held_out_composition=500,
            num_held_out_object=500,
            num_objects=120,
            single_share=0.25,
            count_share=0.1,
            relation_share=0.2,
            group_share=0.15,
            icon_share=0.3,
            seed=1,
        )
    )


def bundled_decoder() -> DataRecipe:
    """Scenes as those of `bundled` on 512 x 512 pixels, for the decoder that ships.

    Claim: what the bundled model draws, at four times the size that is encoded.
    Command: cogview data build bundled-decoder --out PICTURES
    Cost: a minute and 0.2 GB of disk on one CPU core; a training unpacks another 7 GB beside it.
    """
    data = _scenes_of(bundled())
    return DataRecipe(
        data=replace(
            data, num_train=6_000, num_held_out_composition=300, num_held_out_object=300, size_pixels=512
        )
    )


def bundled_decoder_others() -> DataRecipe:
    """Scenes and single icons of all kinds on 512 x 512 pixels, beside those of `bundled-decoder`.

    Claim: what the bundled model does not draw, in four styles, so that the decoder spoils nothing of it.
    Command: cogview data build bundled-decoder-others --out PICTURES
    Cost: four minutes and 0.4 GB of disk on one CPU core; a training unpacks another 13 GB beside it.
    """
    data = _scenes_of(bundled_image_tokenizer())
    return DataRecipe(
        data=replace(
            data,
            num_train=12_000,
            num_held_out_composition=300,
            num_held_out_object=300,
            num_objects=80,
            size_pixels=512,
        )
    )


def world() -> DataRecipe:
    """Scenes of a larger world, for the next transformer that ships.

    Claim: 256 objects in three styles on ten grounds; counted up to six, placed, in two groups, of two sizes, and in
    nine colours beside their own.
    Command: cogview data build world --out PICTURES
    Cost: four minutes and 0.7 GB of disk on 2 CPU cores.
    """
    return DataRecipe(
        data=DefaultDataConfig(
            num_train=120_000,
            num_held_out_composition=1_000,
            num_held_out_colour=1_000,
            num_held_out_object=500,
            num_objects=256,
            styles=("twemoji", "fluent-flat", "noto"),
            single_cells=7,
            single_share=0.18,
            count_share=0.12,
            relation_share=0.25,
            group_share=0.12,
            groups_share=0.18,
            sizes_share=0.15,
            most_counted=6,
            sized_share=0.4,
            coloured_share=0.35,
        )
    )


def world_decoder() -> DataRecipe:
    """Scenes as those of `world` on 512 x 512 pixels, for its decoder.

    Claim: what the model draws, at four times the size that is encoded.
    Command: cogview data build world-decoder --out PICTURES
    Cost: three minutes and 0.5 GB of disk on one CPU core; a training unpacks another 13 GB beside it.
    """
    data = _scenes_of(world())
    return DataRecipe(
        data=replace(
            data,
            num_train=12_000,
            num_held_out_composition=300,
            num_held_out_colour=300,
            num_held_out_object=300,
            size_pixels=512,
        )
    )


def world_captions() -> DataRecipe:
    """Scenes as those of `world` in four styles and icons of all kinds, for captioning.

    Claim: 256 objects with the colours, sizes, groups and places of `world`, each held out in one of the styles. A
    quarter of the pictures show another icon, another quarter one known thing. Seven in ten are augmented: icons are
    rotated and mirrored, and hues and sizes changed where captions stay true.
    Command: cogview data build world-captions --out PICTURES
    Cost: some five minutes and 1.2 GB of disk on 2 CPU cores, by 400 of them.
    """
    data = _scenes_of(world())
    return DataRecipe(
        data=replace(
            data,
            num_train=160_000,
            num_held_out_colour=500,
            num_held_out_object=0,
            num_held_out_drawing=500,
            styles=DefaultDataConfig.styles,
            single_share=0.5,
            icon_share=0.5,
            varied_share=0.7,
            seed=2,
        )
    )


def bundled_gpu() -> DataRecipe:
    """Scenes of the whole table of objects in five styles, for `text-to-image bundled-gpu`.

    Claim: every object of the table; pictures enough for a few epochs of a model three times as large.
    Command: cogview data build bundled-gpu --out PICTURES
    Cost: about two minutes and 2 GB of disk on 16 CPU cores; not measured.
    """
    return DataRecipe(
        data=DefaultDataConfig(
            num_train=300_000,
            num_held_out_composition=1_000,
            num_held_out_object=500,
            num_objects=288,
            styles=TRAINING_STYLES,
            single_share=0.25,
            count_share=0.15,
            relation_share=0.35,
            group_share=0.25,
            num_workers=16,
        )
    )


def bundled_gpu_image_tokenizer() -> DataRecipe:
    """Scenes and single icons of all kinds in five styles, for `image-tokenizer bundled-gpu`.

    Claim: every icon of the training split.
    Command: cogview data build bundled-gpu-image-tokenizer --out PICTURES
    Cost: about a minute and 1 GB of disk on 16 CPU cores; not measured.
    """
    data = _scenes_of(bundled_image_tokenizer())
    return DataRecipe(
        data=replace(data, num_train=100_000, num_objects=288, styles=TRAINING_STYLES, num_workers=16)
    )


def openmoji_style() -> DataRecipe:
    """A thousand openmoji pictures to finetune the bundled model on, and others to measure it by.

    Claim: single icons in the world of `bundled`, 60 of its 80 objects, with captions as "A cat of openmoji style", and
    in Chinese; the other 20 objects are in the split held-out-style alone. Beside the thousand, 1,600 pictures of all
    80 in another manner, twemoji's art with black lines, captioned "A cat of outlined style"; two fifths of all
    captions leave the style out. The art is under CC-BY-SA-4.0: so are the pictures, and CREDITS.txt beside them says
    whom to credit.
    Command: cogview data build openmoji-style --out PICTURES
    Cost: half a minute, once the packages are there.

    Paper: 3.3.
    """
    return DataRecipe(data=StyleDataConfig())


def world_openmoji_style() -> DataRecipe:
    """Openmoji pictures as those of `openmoji-style`, of the objects of `world`.

    Claim: 1,500 single icons of 216 objects, "A cat of openmoji style", and 2,400 of all 256 in black lines, "A cat of
    outlined style"; the other 40 objects are in the split held-out-style alone. Under CC-BY-SA-4.0.
    Command: cogview data build world-openmoji-style --out PICTURES
    Cost: half a minute, once the packages are there.

    Paper: 3.3.
    """
    return DataRecipe(
        data=StyleDataConfig(
            num_train=1_500,
            num_ordinary=2_400,
            num_held_out_objects=40,
            num_known_objects=256,
        )
    )


def world_3d_style() -> DataRecipe:
    """Pictures in soft 3D renderings, of the objects of `world`, whose transformer has not seen them.

    Claim: 1,500 single icons of 216 objects, "A cat of 3D style"; 2,400 of all 256 in the flat style of `world`, "A cat
    of fluent-flat style"; the other 40 objects are in the split held-out-style alone. The two styles have the same
    shapes, so that the rendering alone is to be learnt. Under MIT.
    Command: cogview data build world-3d-style --out PICTURES
    Cost: half a minute, once the packages are there.

    Paper: 3.3.
    """
    data = world_openmoji_style().data
    assert isinstance(data, StyleDataConfig)
    return DataRecipe(
        data=replace(data, style="fluent-3d", known_styles=("fluent-flat",), style_cells=data.object_cells)
    )


def people() -> DataRecipe:
    """People of ten occupations and two ages in the styles of `bundled`, mostly men with light skin.

    Claim: 12,000 pictures, of which 80 % show men and 70 % one of the two lightest of five skin tones; half of the
    captions say neither ("a firefighter"), half say both in emojibase's words ("a woman firefighter: dark skin tone").
    The split held-out-people has each gender and skin tone equally often, on grounds that training does not show them
    on. For measuring what word replacing does.
    Command: cogview data build people --out PICTURES
    Cost: half a minute, once the packages are there.

    Paper: appendix D.
    """
    return DataRecipe(data=PeopleDataConfig())


def clothing() -> DataRecipe:
    """Real pictures of clothing in ten classes, for the small fashion model.

    Claim: 21,000 of Fashion-MNIST's grey pictures (MIT), upscaled to 64 pixels, with captions in both languages.
    Command: cogview data build clothing --out PICTURES --data.fetch
    Cost: seconds, and 31 MB to fetch; without --data.fetch, Debian's package dataset-fashion-mnist has to be there.

    Paper: 3.4.
    """
    return DataRecipe(data=ClothingDataConfig())


def tiny() -> DataRecipe:
    """A handful of scenes of six things, for trying every command.

    Claim: enough for `docs/every-command.md`, the composition score included.
    Command: cogview data build tiny --out PICTURES
    Cost: seconds, once the packages are there.
    """
    return DataRecipe(
        data=DefaultDataConfig(
            num_train=240,
            num_held_out_composition=24,
            num_held_out_object=8,
            size_pixels=64,
            styles=("twemoji", "fluent-flat"),
            num_objects=6,
            single_cells=7,
            single_share=0.5,
            relation_share=0.3,
            count_share=0.1,
            group_share=0.1,
        )
    )
