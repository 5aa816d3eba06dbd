"""Whatever comes in the place of a picture is counted and listed by kind; what is a picture has its own colours."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_folders import MeanTokenizer, png, small_text_tokenizer
from PIL import Image, ImageChops

from cogview.data.decoding import decode_image, decode_square
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.shards import TokenShards
from cogview.data.tokenization import tokenize_folder
from cogview.errors import UsageError
from cogview.image.picture_reading import ReadImage

COLOR = (200, 100, 50)
GREY = np.linspace(0, 65_535, 64).reshape(8, 8)


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode: str = "RGB", color: tuple[int, ...] = COLOR) -> Image.Image:
    return Image.new("RGB", (8, 8), color).convert(mode)


def png_of(header: bytes, rows: bytes) -> bytes:
    """Return a PNG of the fields of its header and its rows, each after a filter byte."""
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def png_of_16_bits(pixels: np.ndarray, color_type: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png_of(struct.pack(">IIBBBBB", 8, 8, 16, color_type, 0, 0, 0), rows)


def tiff_of_16_bits(pixels: np.ndarray, order: str) -> bytes:
    """Return a TIFF of 16-bit RGB, which Pillow cannot write."""
    data, place = pixels.astype(order + "u2").tobytes(), 8 + 2 + 9 * 12 + 4
    fields = ((256, 8), (257, 8), (258, place), (259, 1), (262, 2), (273, place + 6), (277, 3), (278, 8))
    entries = b"".join(
        struct.pack(order + "HHII", tag, 3, 3, value)
        if tag == 258
        else struct.pack(order + "HHII", tag, 4, 1, value)
        for tag, value in (*fields, (279, len(data)))
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return (
        head
        + struct.pack(order + "H", 9)
        + entries
        + bytes(4)
        + struct.pack(order + "HHH", 16, 16, 16)
        + data
    )


def without_adobe_marker(jpeg: bytes) -> bytes:
    place = jpeg.index(b"\xff\xee")
    (length,) = struct.unpack(">H", jpeg[place + 2 : place + 4])
    return jpeg[:place] + jpeg[place + 2 + length :]


def read(data: bytes) -> ReadImage:
    decoded = decode_image(CaptionedImage(name="a.png", source=data, texts=("a",)))
    assert not isinstance(decoded, Problem), decoded
    return decoded


def problem_of(data: bytes) -> Problem:
    problem = decode_square(CaptionedImage(name="a.png", source=data, texts=("a",)), 8)
    assert isinstance(problem, Problem)
    return problem


WHOLE = {
    "png": file_of(Image.effect_noise((64, 64), 50)),
    "jpeg": file_of(Image.effect_noise((64, 64), 50), "JPEG"),
    "gif": file_of(Image.effect_noise((64, 64), 50), "GIF"),
    "bmp": file_of(Image.effect_noise((64, 64), 50), "BMP"),
    "tiff": file_of(Image.effect_noise((64, 64), 50), "TIFF"),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_picture_is_left_out(kind: str, share: float) -> None:
    data = WHOLE[kind]
    assert problem_of(data[: int(len(data) * share)]).kind in ("truncated", "no picture")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_webp_or_compressed_tiff_is_left_out(share: float) -> None:
    for data in (
        file_of(Image.effect_noise((64, 64), 50), "WEBP"),
        file_of(Image.effect_noise((64, 64), 50), "TIFF", compression="tiff_lzw"),
    ):
        assert problem_of(data[: int(len(data) * share)]).kind in ("damaged", "no picture")


def test_a_corrupt_picture_is_left_out() -> None:
    data = bytearray(WHOLE["png"])
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    assert problem_of(bytes(data)).kind == "damaged"


def test_an_empty_file_is_left_out(tmp_path: Path) -> None:
    assert problem_of(b"").kind == "empty"
    (tmp_path / "a.png").touch()
    problem = decode_image(CaptionedImage(name="a.png", source=tmp_path / "a.png", texts=("a",)))
    assert isinstance(problem, Problem)
    assert problem.kind == "empty"


@pytest.mark.parametrize(
    "data", [b"a text that is called a picture\n" * 9, b"<html>not found</html>", bytes(99)]
)
def test_a_file_that_is_no_picture_is_left_out(data: bytes) -> None:
    assert problem_of(data).kind == "no picture"


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_decompression_bomb_is_left_out_unopened(side: int) -> None:
    bomb = png_of(struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), bytes(10))
    assert problem_of(bomb).kind == "too large"


def test_a_file_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    problem = decode_image(CaptionedImage(name="a.png", source=tmp_path / "a.png", texts=("a",)))
    assert isinstance(problem, Problem)
    assert problem.kind == "missing"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_told(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(file_of(plain(), kind, save_all=True, append_images=[plain(color=(0, 0, 255))], **options))
    assert "animated" in found.changes
    assert found.rgb.getpixel((3, 3)) == COLOR
    assert "animated" not in read(file_of(plain(), kind)).changes


def test_a_preview_beside_a_photograph_is_no_animation() -> None:
    assert read(file_of(plain(), "MPO", save_all=True, append_images=[plain()])).changes == ()


def test_cmyk_keeps_its_colors_however_it_is_stored() -> None:
    inks = plain("CMYK")
    inverted_as_adobe_does = file_of(inks, "JPEG", quality=100)
    assert b"Adobe" in inverted_as_adobe_does
    as_the_standard_says = without_adobe_marker(file_of(ImageChops.invert(inks), "JPEG", quality=100))
    for data in (inverted_as_adobe_does, as_the_standard_says, file_of(inks, "TIFF")):
        found = read(data)
        assert found.changes == ("CMYK",)
        assert np.abs(np.subtract(found.rgb.getpixel((3, 3)), COLOR)).max() <= 2


@pytest.mark.parametrize("stored", ["PNG", "TIFF <", "TIFF >"])
def test_16_bit_colors_are_scaled(stored: str) -> None:
    pixels = np.stack([GREY, GREY[::-1], GREY.T], axis=-1).astype(np.uint16)
    found = read(
        png_of_16_bits(pixels, color_type=2) if stored == "PNG" else tiff_of_16_bits(pixels, stored[-1])
    )
    assert found.changes == ("16-bit",)
    assert np.array_equal(np.asarray(found.rgb), pixels >> 8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_even_if_it_is_dark(kind: str) -> None:
    for grey in (GREY.astype(np.uint16), np.full((8, 8), 200, dtype=np.uint16)):
        data = (
            b"P5 8 8 65535\n" + grey.astype(">u2").tobytes()
            if kind == "PPM"
            else file_of(Image.fromarray(grey), kind)
        )
        found = read(data)
        assert found.changes == ("16-bit",)
        assert np.abs(np.asarray(found.rgb)[..., 0] - (grey >> 8).astype(int)).max() <= 1


def test_16_bit_grey_with_alpha_lies_on_white() -> None:
    grey = GREY.astype(np.uint16)
    alpha = np.where(np.arange(8) < 4, 65_535, 0).astype(np.uint16) + np.zeros_like(grey)
    found = read(png_of_16_bits(np.stack([grey, alpha], axis=-1), color_type=4))
    assert found.changes == ("16-bit", "alpha")
    assert np.array_equal(np.asarray(found.rgb)[:, :4, 0], (grey >> 8)[:, :4])
    assert (np.asarray(found.rgb)[:, 4:] == 255).all()
    clear_black = read(file_of(Image.fromarray(grey), transparency=0))
    assert np.asarray(clear_black.rgb)[0, 0].tolist() == [255] * 3
    assert "alpha" in clear_black.changes


@pytest.mark.parametrize(
    ("numbers", "white"),
    [
        ((GREY / 65_535).astype(np.float32), 1),
        ((GREY / 257).astype(np.float32), 255),
        (GREY.astype(np.float32), 65_535),
        (GREY.astype(np.int32), 65_535),
        ((GREY / 257).astype(np.int32), 255),
    ],
)
def test_32_bit_numbers_are_scaled_by_what_must_be_white(numbers: np.ndarray, white: int) -> None:
    found = read(file_of(Image.fromarray(numbers), "TIFF"))
    assert found.changes == ("32-bit",)
    expected = numbers.astype(np.float64) / white * 255
    assert np.abs(np.asarray(found.rgb)[..., 1] - expected).max() <= 0.51


@pytest.mark.parametrize("wrong", [-1.0, 70_000.0, np.nan, np.inf])
def test_32_bit_numbers_that_may_mean_anything_are_left_out(wrong: float) -> None:
    numbers = np.full((8, 8), 0.5, dtype=np.float32)
    numbers[3, 3] = wrong
    problem = problem_of(file_of(Image.fromarray(numbers), "TIFF"))
    assert problem.kind == "unknown range"
    assert problem.reason.startswith("32-bit numbers from")


def test_a_palette_is_looked_up_and_its_transparent_color_is_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.paste((*COLOR, 255), (0, 0, 4, 8))
    for image, changes in ((plain().quantize(4), ("palette",)), (clear.quantize(4), ("palette", "alpha"))):
        found = read(file_of(image))
        assert found.changes == changes
        assert found.rgb.getpixel((0, 0)) == COLOR
    assert found.rgb.getpixel((7, 7)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_lies_on_white(mode: str) -> None:
    image = plain(mode)
    image.putalpha(0)
    image.putpixel((0, 0), plain(mode).getpixel((0, 0)))
    found = read(file_of(image))
    assert found.changes == ("alpha",)
    assert found.rgb.getpixel((0, 0)) == plain(mode[:-1]).convert("RGB").getpixel((0, 0))
    assert found.rgb.getpixel((7, 7)) == (255, 255, 255)


def test_the_report_groups_problems_and_the_listing_has_all(tmp_path: Path) -> None:
    files = {
        "a.png": png(0),
        "b.png": b"",
        "c.png": b"text",
        "d.tif": file_of(plain("CMYK"), "TIFF"),
        "e.gif": file_of(plain(), "GIF", save_all=True, append_images=[plain(color=(0, 0, 255))]),
        **{f"f{number:02d}.png": WHOLE["png"][:-200] for number in range(12)},
    }
    data = tmp_path / "data"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_bytes(content)
        (data / name).with_suffix(".txt").write_text("a cat")
    (data / "g.png").write_bytes(png(1))
    with pytest.warns(UserWarning, match="pictures left out: 15"):
        report = tokenize_folder(
            data,
            tmp_path / "tokens",
            MeanTokenizer(),
            small_text_tokenizer(tmp_path),
            size_pixels=16,
            batch_size=3,
            pairs_per_shard=5,
        )
    assert report is not None
    assert (report.num_pairs, report.num_problems) == (3, 15)
    counts = {group.kind: group.count for group in report.problems}
    assert counts == {"truncated": 12, "empty": 1, "no picture": 1, "no caption": 1}
    assert [problem.where for problem in report.problems[0].first] == [f"f{n:02d}.png" for n in range(10)]
    assert {group.kind: group.count for group in report.changes} == {"CMYK": 1, "animated": 1, "palette": 1}
    text = report.to_text().splitlines()
    assert "left out, truncated: 12" in text
    assert "  and 2 more" in text
    assert "changed, animated: 1" in text
    assert "  e.gif: only the first frame was taken" in text
    lines = [json.loads(line) for line in (tmp_path / "tokens" / "problems.jsonl").read_text().splitlines()]
    assert [line["where"] for line in lines if line["left_out"]] == [
        "b.png",
        "c.png",
        *(f"f{number:02d}.png" for number in range(12)),
        "g.png",
    ]
    assert [(line["where"], line["kind"]) for line in lines if not line["left_out"]] == [
        ("d.tif", "CMYK"),
        ("e.gif", "animated"),
        ("e.gif", "palette"),
    ]
    assert TokenShards(tmp_path / "tokens").report == json.loads(json.dumps(report.to_json()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_has_no_end_is_left_out_unread(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    found = decode_image(CaptionedImage(name="a.png", source=path, texts=("a",)))
    assert found == Problem(where="a.png", kind="unreadable", reason="a pipe or a device, no file")


@pytest.mark.parametrize("name", ["batch_size", "pairs_per_shard", "max_text_pieces"])
def test_numbers_below_1_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}.* must be 1 or more, got .*-3"):
        tokenize_folder(
            tmp_path,
            tmp_path / "tokens",
            MeanTokenizer(),
            small_text_tokenizer(tmp_path),
            size_pixels=16,
            **{name: -3},
        )
    assert not list(tmp_path.glob("*tokens*"))
