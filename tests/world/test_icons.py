"""Icons are found by code point, drawn at any size, and read from archives that are checked."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.files import sha256_of
from cogview.world import icons as icons_module
from cogview.world import packages
from cogview.world.config import Style
from cogview.world.icons import Icons, IconWords, code_of, load_icons
from cogview.world.packages import Package, find_package, read_members

HALF_RED = '<rect width="8" height="16" fill="#ff0000"/>'


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def package(path: Path, name: str) -> Package:
    return Package(name=name, version="1.0.0", sha256=sha256_of(path), licence="MIT", author="nobody")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with archives as npm packs them, pinned in the place of the real ones."""
    skin = {"label": "hand: light", "hexcode": "1F44B-1F3FB", "group": 1}
    entries = {
        "en": [
            {"label": "heart", "hexcode": "2764-FE0F", "group": 0, "tags": ["love", "heart"]},
            {"label": "hand", "hexcode": "1F44B", "group": 1, "tags": [], "skins": [skin]},
            {"label": "red hair", "hexcode": "1F9B0", "group": 2, "tags": []},
            {"label": "letter", "hexcode": "1F1E6"},
        ],
        "zh": [
            {"label": "红心", "hexcode": "2764-FE0F", "group": 0, "tags": ["爱"]},
            {"label": "手", "hexcode": "1F44B", "group": 1, "skins": [skin | {"label": "手: 浅"}]},
        ],
    }
    write_archive(
        tmp_path / "words-1.0.0.tgz",
        {f"{language}/data.json": json.dumps(value).encode() for language, value in entries.items()},
    )
    icon_set = {
        "width": 16,
        "height": 16,
        "icons": {"heart": {"body": HALF_RED}, "tall": {"body": HALF_RED, "width": 8}},
        "aliases": {"hand": {"parent": "heart", "hFlip": True}},
    }
    names = {"2764": "heart", "1f44b": "hand", "1f44b-1f3fb": "heart", "1f5ff": "tall", "1f600": "nowhere"}
    write_archive(
        tmp_path / "set-1.0.0.tgz",
        {"icons.json": json.dumps(icon_set).encode(), "chars.json": json.dumps(names).encode()},
    )
    write_archive(
        tmp_path / "nameless-1.0.0.tgz", {"icons.json": json.dumps(icon_set).encode(), "chars.json": b"{}"}
    )
    picture = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 255, 255)).save(picture, "WEBP", lossless=True)
    write_archive(
        tmp_path / "bitmaps-1.0.0.tgz",
        {
            "assets/2764-fe0f.webp": picture.getvalue(),
            "assets/1f44b-1f3fb.webp": picture.getvalue(),
            "README.md": b"",
        },
    )
    flat = package(tmp_path / "set-1.0.0.tgz", "set")
    monkeypatch.setattr(packages, "EMOJIBASE", package(tmp_path / "words-1.0.0.tgz", "words"))
    monkeypatch.setattr(packages, "FLUENT_FLAT", flat)
    of_style = icons_module.PACKAGE_OF_STYLE
    monkeypatch.setitem(of_style, "noto", flat)
    monkeypatch.setitem(of_style, "outlined", flat)
    monkeypatch.setitem(of_style, "fluent", package(tmp_path / "nameless-1.0.0.tgz", "nameless"))
    monkeypatch.setitem(of_style, "fluent-3d", package(tmp_path / "bitmaps-1.0.0.tgz", "bitmaps"))
    return tmp_path


@pytest.mark.parametrize(
    ("sequence", "code"),
    [
        ("2764-FE0F", "2764"),
        ("1F9D1-200D-2764-FE0F", "1f9d1-200d-2764"),
        ("23-FE0E", "23"),
        ("1f408", "1f408"),
    ],
)
def test_codes_ignore_case_and_variation_selectors(sequence: str, code: str) -> None:
    assert code_of(sequence) == code


def test_art_and_words_join_on_the_code(folder: Path) -> None:
    icons = load_icons(["noto", "fluent-3d"], folder)
    assert icons.styles == ("noto", "fluent-3d")
    assert icons.codes("noto") == ["1f44b", "2764"]
    assert icons.codes("fluent-3d") == ["2764"]
    assert icons.words["2764"] == IconWords(
        labels={"zh": "红心", "en": "heart"}, tags={"zh": ("爱",), "en": ("love",)}
    )


def test_skin_tones_components_and_letters_are_left_out(folder: Path) -> None:
    icons = load_icons(["noto", "fluent-3d"], folder)
    assert not icons.has("noto", "1f44b-1f3fb")
    assert not icons.has("fluent-3d", "1f44b-1f3fb")
    assert icons.words.keys() == {"2764", "1f44b"}


def test_a_set_without_code_points_uses_its_sisters(folder: Path) -> None:
    assert load_icons(["fluent"], folder).codes("fluent") == ["1f44b", "2764"]


def test_only_the_wanted_codes_are_kept(folder: Path) -> None:
    icons = load_icons(["noto"], folder, only_codes=["2764", "1f600"])
    assert icons.codes("noto") == ["2764"]
    assert not icons.has("noto", "1f44b")


@pytest.mark.parametrize("size_pixels", [16, 56, 100])
def test_svg_is_drawn_at_the_size_asked_for(folder: Path, size_pixels: int) -> None:
    raster = load_icons(["noto"], folder).draw("noto", "2764", size_pixels)
    assert raster.shape == (size_pixels, size_pixels, 4)
    half = size_pixels // 2
    assert (raster[:, :half] == (255, 0, 0, 255)).all()
    assert (raster[:, half:, 3] == 0).all()


def test_an_outlined_icon_has_a_black_line_around_its_shape_and_is_else_the_same(folder: Path) -> None:
    icons = load_icons(["noto", "outlined"], folder)
    plain, outlined = (icons.draw(style, "2764", 90).astype(int) for style in ("noto", "outlined"))
    middle = outlined[45, :, :]
    black = np.flatnonzero((middle == (0, 0, 0, 255)).all(1))
    assert {0, 44, 45} <= set(black.tolist()) <= {0, 1, 43, 44, 45, 46}  # at both ends of the left half
    inside = slice(5, 40)
    assert np.array_equal(outlined[inside, inside], plain[inside, inside])


def test_a_mirrored_alias_is_mirrored(folder: Path) -> None:
    icons = load_icons(["noto"], folder)
    assert np.array_equal(icons.draw("noto", "1f44b", 32), icons.draw("noto", "2764", 32)[:, ::-1])


@pytest.mark.parametrize("style", ["noto", "fluent", "fluent-3d"])
def test_skin_tones_are_loaded_if_they_are_named(style: Style, folder: Path) -> None:
    assert "1f44b-1f3fb" not in load_icons([style], folder).words
    assert not load_icons([style], folder).has(style, "1f44b-1f3fb")
    icons = load_icons([style], folder, ["1f44b-1f3fb"])
    assert icons.codes(style) == ["1f44b-1f3fb"]
    assert icons.words["1f44b-1f3fb"].labels == {"en": "hand: light", "zh": "手: 浅"}
    assert icons.draw(style, "1f44b-1f3fb", 16).any()


def test_an_icon_that_is_not_square_is_centred(folder: Path) -> None:
    raster = load_icons(["noto"], folder).draw("noto", "1f5ff", 32)
    opaque = np.flatnonzero(raster[16, :, 3])
    assert (opaque[0], opaque[-1]) == (8, 23)


def test_bitmaps_are_scaled(folder: Path) -> None:
    raster = load_icons(["fluent-3d"], folder).draw("fluent-3d", "2764", 24)
    assert raster.shape == (24, 24, 4)
    assert (raster == (0, 0, 255, 255)).all()


def test_a_raster_cannot_be_changed_by_who_draws_it(folder: Path) -> None:
    raster = load_icons(["noto"], folder).draw("noto", "2764", 16)
    with pytest.raises(ValueError, match="read-only"):
        raster[0, 0] = 0


def test_unknown_icons_and_styles_are_refused(folder: Path) -> None:
    icons = load_icons(["noto"], folder)
    with pytest.raises(UsageError, match="'1f408'"):
        icons.draw("noto", "1f408", 16)
    with pytest.raises(UsageError, match=r"'twemoji'.* noto"):
        icons.draw("twemoji", "2764", 16)


def test_memory_for_rasters_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    icons = load_icons(["noto"], folder)
    monkeypatch.setattr(icons_module, "MAX_CACHED_BYTES", 16 * 16 * 4)
    first, second = icons.draw("noto", "2764", 16), icons.draw("noto", "1f44b", 16)
    assert icons.draw("noto", "2764", 16) is first
    again = icons.draw("noto", "1f44b", 16)
    assert again is not second
    assert np.array_equal(again, second)


def test_a_changed_archive_is_refused(folder: Path) -> None:
    write_archive(folder / "set-1.0.0.tgz", {"icons.json": b"{}"})
    with pytest.raises(CogViewError, match=r"set@1\.0\.0: .*sha256"):
        load_icons(["noto"], folder)


def test_a_missing_archive_is_named_with_the_command_that_gets_it(folder: Path) -> None:
    (folder / "set-1.0.0.tgz").unlink()
    with pytest.raises(CogViewError, match=r"set-1\.0\.0\.tgz; .*`npm pack set@1\.0\.0`"):
        load_icons(["noto"], folder)


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad-1.0.0.tgz"
    path.write_bytes(b"not an archive")
    with pytest.raises(CogViewError, match="not a readable"):
        list(read_members(path))


def test_links_in_an_archive_are_never_followed(tmp_path: Path) -> None:
    path = tmp_path / "links-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("package/icons.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert list(read_members(path)) == []


def test_without_npm_the_user_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COGVIEW_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(CogViewError, match="npm"):
        find_package(packages.NOTO)


def fake_npm(monkeypatch: pytest.MonkeyPatch, source: Path | None) -> list[list[str]]:
    """Put in the place of npm what copies `source`, or fails as npm does offline; return the commands it is given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        commands.append(command)
        if source is None:
            return subprocess.CompletedProcess(command, 1, "", "npm error code ENOTFOUND\nnpm error more\n")
        target = Path(command[command.index("--pack-destination") + 1]) / source.name
        target.write_bytes(source.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(packages.subprocess, "run", run)
    return commands


def test_a_package_is_fetched_once_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COGVIEW_CACHE", str(tmp_path / "cache"))
    commands = fake_npm(monkeypatch, folder / "set-1.0.0.tgz")
    wanted = icons_module.PACKAGE_OF_STYLE["noto"]
    path = find_package(wanted)
    assert path == tmp_path / "cache" / "packages" / "set-1.0.0.tgz"
    assert find_package(wanted) == path
    assert [command[1:3] for command in commands] == [["pack", "set@1.0.0"]]


def test_a_fetched_archive_that_differs_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COGVIEW_CACHE", str(tmp_path / "cache"))
    fake_npm(monkeypatch, folder / "set-1.0.0.tgz")
    pinned = Package(name="set", version="1.0.0", sha256="0" * 64, licence="MIT", author="nobody")
    with pytest.raises(CogViewError, match="sha256"):
        find_package(pinned)
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


def test_offline_the_reason_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COGVIEW_CACHE", str(tmp_path / "cache"))
    fake_npm(monkeypatch, None)
    with pytest.raises(CogViewError, match=r"noto@1\.2\.9 \(code ENOTFOUND\)") as caught:
        find_package(packages.NOTO)
    assert "\n" not in str(caught.value)


def test_every_pinned_package_says_whose_it_is() -> None:
    pinned = [packages.EMOJIBASE, *icons_module.PACKAGE_OF_STYLE.values()]
    assert len({one.file_name for one in pinned}) == 7
    assert all(len(one.sha256) == 64 and one.licence and one.author for one in pinned)


def test_icons_without_words_are_not_offered() -> None:
    icons = Icons({"noto": {"1f408": "<svg/>"}}, {})
    assert icons.codes("noto") == []
    assert icons.has("noto", "1f408")
