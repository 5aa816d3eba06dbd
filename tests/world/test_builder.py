"""The data set is the same bytes however it is built, complete, and written whole or not at all."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.data.check import check_folder
from cogview.errors import CogViewError, UsageError
from cogview.world import builder
from cogview.world.builder import ExampleSource, build_default_data
from cogview.world.config import DefaultDataConfig
from cogview.world.icon_sheets import IconSheets, icon_sizes
from cogview.world.icons import Icons, load_icons
from cogview.world.objects import held_out_codes, known_codes, scene_objects
from cogview.world.packages import cache_folder
from cogview.world.scene_maker import make_scene
from cogview.world.scenes import Scene, draw_scene, split_of

CONFIG = DefaultDataConfig(
    num_train=30,
    num_held_out_composition=6,
    num_held_out_object=5,
    num_held_out_style=4,
    size_pixels=32,
    num_objects=20,
    icon_share=0.2,
    num_workers=1,
)
SIZES = {"train": 30, "held-out-composition": 6, "held-out-object": 5, "held-out-style": 4}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_metadata(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def built(icons: Icons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "data"
    assert build_default_data(CONFIG, folder, icons=icons) == SIZES
    return folder


@pytest.mark.slow
def test_every_picture_has_its_line_and_every_line_its_picture(built: Path) -> None:
    lines = read_metadata(built)
    assert {path for path in digests(built) if path.endswith(".png")} == {line["file_name"] for line in lines}
    for split, size in SIZES.items():
        assert sum(line["split"] == split for line in lines) == size


def test_lines_hold_captions_in_both_languages_and_the_scene(built: Path, icons: Icons) -> None:
    for line in read_metadata(built):
        assert len(line["texts"]) == len(set(line["texts"])) == CONFIG.captions_per_picture
        assert sum(any("\u4e00" <= letter <= "\u9fff" for letter in text) for text in line["texts"]) == 3
        scene = Scene.from_json(line["scene"])
        assert split_of(scene) == line["split"]
        with Image.open(built / line["file_name"]) as picture:
            assert picture.mode == "RGB"
            assert np.array_equal(np.asarray(picture), np.asarray(draw_scene(scene, icons, 32)))


@pytest.mark.parametrize("form", ["image-folder", "webdataset"])
@pytest.mark.slow
def test_the_icons_lie_beside_the_pictures_and_are_no_part_of_them(
    icons: Icons, tmp_path: Path, form: Any
) -> None:
    config = replace(CONFIG, format=form, single_cells=9, sized_share=0.5, coloured_share=0.5, num_train=9)
    build_default_data(config, tmp_path / "data", icons=icons)
    sheets = IconSheets.of(tmp_path / "data")
    assert sheets.sizes == icon_sizes(config) == (4, 7, 9)
    assert set(sheets.codes) == {*config.styles, "openmoji"}
    assert set(sheets.codes["noto"]) == {*known_codes(20), *held_out_codes()}  # of the table alone
    assert sheets.coloured == {code for code in sheets.codes["noto"] if scene_objects()[code].has_colours}
    for number, code in enumerate(sheets.codes["twemoji"]):
        assert np.array_equal(sheets.rasters("twemoji", 9)[number], icons.draw("twemoji", code, 18))
    assert check_folder(tmp_path / "data").num_problems == 0


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, (7, 12)),
        ({"single_share": 0.0, "num_held_out_drawing": 0}, (7,)),
        ({"most_counted": 6}, (4, 7, 12)),
        ({"groups_share": 0.1, "single_cells": 7}, (4, 7)),
        ({"sizes_share": 0.1, "single_cells": 7}, (4, 7, 9)),
        (dict.fromkeys(("single_share", "count_share", "relation_share", "group_share"), 0.0), ()),
    ],
)
@pytest.mark.slow
def test_the_icons_have_the_sizes_of_the_scenes(changes: dict[str, Any], sizes: tuple[int, ...]) -> None:
    config = replace(CONFIG, **changes)
    assert icon_sizes(config) == sizes
    if not config.icon_share or not sizes:
        return
    composed = replace(config, icon_share=0.0, num_held_out_style=0)
    visible = {each.size for index in range(300) for each in make_scene(composed, "train", index).placements}
    assert visible == set(sizes)


def test_share_alike_art_is_in_its_own_split_alone(built: Path) -> None:
    for line in read_metadata(built):
        assert (line["scene"]["style"] == "openmoji") == (line["split"] == "held-out-style")


@pytest.mark.slow
def test_one_style_of_each_object_can_be_held_back(icons: Icons) -> None:
    config = replace(CONFIG, num_held_out_drawing=8, icon_share=0.0)
    source = ExampleSource(config, icons)
    shown = [source.example("train", index).scene for index in range(300)]
    drawings = {(each.code, scene.style) for scene in shown for each in scene.placements}
    held_out = [source.example("held-out-drawing", index).scene for index in range(100)]
    assert all(len(scene.placements) == 1 for scene in held_out)
    unseen = {(scene.placements[0].code, scene.style) for scene in held_out}
    assert unseen.isdisjoint(drawings)
    objects = {code for code, _ in unseen}
    assert len(unseen) == len(objects) > 15
    # Of four styles each is held back from some objects, and the other three are shown.
    assert {style for _, style in unseen} == set(CONFIG.styles)
    assert {code for code, _ in drawings} >= objects
    with pytest.raises(UsageError, match="at least two styles"):
        ExampleSource(replace(config, styles=("noto",)), icons)


@pytest.mark.slow
def test_icons_of_the_whole_sets_are_split_by_code_point(built: Path, icons: Icons) -> None:
    config = replace(
        CONFIG, icon_share=1.0, single_share=0.0, count_share=0.0, relation_share=0.0, group_share=0.0
    )
    source = ExampleSource(config, icons)
    train = {source.example("train", index).scene.placements[0].code for index in range(400)}
    held_out = {source.example("held-out-object", index).scene.placements[0].code for index in range(100)}
    assert train.isdisjoint(held_out)
    assert len(train - scene_objects().keys()) > 40
    assert held_out - scene_objects().keys()


def test_the_description_names_the_configuration_and_whose_art_it_is(built: Path) -> None:
    description = json.loads((built / "data-config.json").read_text())
    assert description["config"]["seed"] == CONFIG.seed
    assert "num_workers" not in description["config"]
    licences = {package["name"]: package["licence"] for package in description["packages"]}
    assert licences["@iconify-json/openmoji"] == "CC-BY-SA-4.0"
    assert licences["@iconify-json/twemoji"] == "CC-BY-4.0"


@pytest.mark.parametrize("form", ["image-folder", "webdataset"])
@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_workers(
    icons: Icons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    monkeypatch.setattr(builder, "CHUNK_PICTURES", 7)
    config = replace(CONFIG, format=form, pictures_per_tar=7)
    build_default_data(config, tmp_path / "one", icons=icons)
    build_default_data(replace(config, num_workers=2), tmp_path / "two", icons=icons)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    build_default_data(replace(config, seed=1), tmp_path / "other", icons=icons)
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


@pytest.mark.slow
def test_tars_hold_the_same_as_the_folder(icons: Icons, built: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, format="webdataset", pictures_per_tar=20)
    build_default_data(config, tmp_path / "tars", icons=icons)
    wanted = {Path(line["file_name"]).stem: line for line in read_metadata(built)}
    found = set()
    tars = sorted((tmp_path / "tars").glob("*.tar"))
    assert [path.name for path in tars if path.name.startswith("train")] == [
        "train-00000.tar",
        "train-00001.tar",
    ]
    for path in tars:
        with tarfile.open(path) as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        for name in {member.rpartition(".")[0] for member in members}:
            record = json.loads(members[f"{name}.json"])
            line = wanted[name]
            assert record == {key: line[key] for key in record}
            assert members[f"{name}.txt"].decode() == record["texts"][0]
            assert members[f"{name}.png"] == (built / line["file_name"]).read_bytes()
            found.add(name)
    assert found == wanted.keys()


@pytest.mark.slow
def test_a_larger_data_set_begins_like_a_smaller_one(icons: Icons, built: Path, tmp_path: Path) -> None:
    build_default_data(replace(CONFIG, num_train=10), tmp_path / "small", icons=icons)
    small, large = digests(tmp_path / "small"), digests(built)
    assert all(large[name] == digest for name, digest in small.items() if name.endswith(".png"))


def test_the_same_scene_at_twice_the_size_looks_the_same(icons: Icons) -> None:
    small = ExampleSource(replace(CONFIG, size_pixels=64), icons).example("train", 3)
    large = ExampleSource(replace(CONFIG, size_pixels=128), icons).example("train", 3)
    assert (small.scene, small.texts) == (large.scene, large.texts)
    halved = np.asarray(large.image.resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(halved - np.asarray(small.image).astype(int)).mean() < 2


@pytest.mark.parametrize(
    ("languages", "num", "chinese"),
    [(("zh",), 4, 4), (("en",), 4, 0), (("zh", "en"), 5, 3), (("zh", "en"), 1, 1)],
)
def test_captions_are_shared_among_the_languages(
    icons: Icons, languages: Any, num: int, chinese: int
) -> None:
    config = replace(CONFIG, languages=languages, captions_per_picture=num)
    texts = ExampleSource(config, icons).example("train", 0).texts
    assert len(texts) == num
    assert sum(any("\u4e00" <= letter <= "\u9fff" for letter in text) for text in texts) == chinese


@pytest.mark.slow
def test_progress_ends_at_the_total(icons: Icons, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    build_default_data(
        CONFIG, tmp_path / "data", lambda done, total: calls.append((done, total)), icons=icons
    )
    assert calls[-1] == (45, 45)
    assert calls == sorted(calls)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"styles": ("noto", "openmoji")}, "'openmoji'"),
        ({"styles": ()}, "styles and languages"),
        ({"languages": ()}, "styles and languages"),
        ({"size_pixels": 100}, "size_pixels is 100.* 16"),
        ({"num_train": -1}, "must not be negative"),
        ({"num_workers": 0}, "num_workers is 0; wanted at least 1"),
        ({"captions_per_picture": 0}, "captions_per_picture is 0"),
        ({"pictures_per_tar": 0}, "pictures_per_tar is 0"),
        ({"num_objects": 1}, "num_objects is 1"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_written(
    icons: Icons, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_default_data(replace(CONFIG, **changes), tmp_path / "data", icons=icons)
    assert list(tmp_path.iterdir()) == []


def test_nothing_at_all_is_refused(icons: Icons, tmp_path: Path) -> None:
    nothing = replace(
        CONFIG, num_train=0, num_held_out_composition=0, num_held_out_object=0, num_held_out_style=0
    )
    with pytest.raises(UsageError, match="nor all 0"):
        build_default_data(nothing, tmp_path / "data", icons=icons)


def test_a_folder_with_content_is_left_alone(icons: Icons, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        build_default_data(CONFIG, tmp_path, icons=icons)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_half_way_leaves_nothing(icons: Icons, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise CogViewError("stop")

    with pytest.raises(CogViewError, match="stop"):
        build_default_data(CONFIG, tmp_path / "data", fail, icons=icons)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(icons: Icons, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CogViewError, match="cannot be written"):
        build_default_data(CONFIG, tmp_path / "file" / "data", icons=icons)


def test_missing_packages_are_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CogViewError, match=r"iconify-json-noto-1\.2\.9\.tgz"):
        build_default_data(replace(CONFIG, packages_folder=tmp_path), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_building_needs_no_torch() -> None:
    code = "import sys, cogview.world.builder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# With the published art, where it has been fetched before


@pytest.mark.skipif(
    len(list((cache_folder() / "packages").glob("*.tgz"))) < 7, reason="needs the icon packages in the cache"
)
def test_every_object_of_the_table_exists_in_all_six_styles() -> None:
    real = load_icons(builder.TRAINING_STYLES + builder.HELD_OUT_STYLES, only_codes=scene_objects())
    for style in real.styles:
        assert real.codes(style) == sorted(scene_objects())
        picture = Image.fromarray(real.draw(style, "1f431", 32))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        assert len(buffer.getvalue()) > 500


@pytest.mark.slow
def test_the_command_builds_a_data_set_and_counts_it(
    icons: Icons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builder, "load_icons", lambda *_: icons)
    words = [
        "data",
        "build",
        "tiny",
        "--out",
        str(tmp_path / "pictures"),
        "--data.num-workers",
        "1",
        "--json",
    ]
    assert main(words) == 0
    counted = json.loads(capsys.readouterr().out)["num_pictures"]
    assert counted == {"train": 240, "held-out-composition": 24, "held-out-object": 8}
    assert len((tmp_path / "pictures" / "metadata.jsonl").read_text("utf-8").splitlines()) == 272
    assert main(words) == 2
    assert "already exists" in capsys.readouterr().err
