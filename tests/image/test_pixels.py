"""Files to pixels and back."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cogview.errors import CogViewError
from cogview.image.picture_reading import read_image, resize_and_crop
from cogview.image.pixels import as_float, image_to_array, tensor_to_images


def file_of(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def test_transparency_becomes_white_in_every_mode_that_has_it():
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    palette = clear.quantize(4)
    for image in (clear, palette):
        pixels = np.asarray(read_image(file_of(image)))
        assert tuple(pixels[1, 1]) == (255, 255, 255)
        assert tuple(pixels[0, 0]) == (255, 0, 0)
    grey = Image.new("LA", (1, 1), (0, 0))
    assert read_image(file_of(grey)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode in ("CMYK", "I;16") else "PNG"
    image = Image.new(mode, (3, 2))
    assert read_image(file_of(image, kind)).mode == "RGB"


def png_that_claims(width, height):
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    chunks = ((header, 13), (b"IDAT", 0), (b"IEND", 0))
    parts = [struct.pack(">I", size) + data + struct.pack(">I", zlib.crc32(data)) for data, size in chunks]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("side", [9_500, 12_000, 20_000])
def test_a_decompression_bomb_is_one_clear_error_and_no_warning(side):
    # Pillow by itself says nothing up to 9,459 pixels a side, warns up to 13,377, and fails beyond.
    with pytest.raises(CogViewError) as refusal:
        read_image(png_that_claims(side, side))
    assert "Warning" not in str(refusal.value)
    assert ("allowed; make it smaller" in str(refusal.value)) == (side > 10_000)


def test_formats_that_start_other_programs_are_not_opened():
    with pytest.raises(CogViewError, match="PostScript"):
        read_image(file_of(Image.new("RGB", (4, 4)), "EPS"))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    image = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [pixel[0] for pixel in np.asarray(read_image(file_of(image)))[0].tolist()] == [0, 128, 255]


def test_exif_orientation_is_honoured():
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert read_image(file_of(image, "JPEG", exif=exif)).size == (2, 4)


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(CogViewError, match="40 x 30 pixels"):
        read_image(file_of(Image.new("RGB", (40, 30))), max_pixels=1000)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_is_told_by_name(tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(CogViewError, match=r"bad\.png: not a picture"):
        read_image(path)


def test_a_picture_cut_short_is_refused(tmp_path):
    whole = file_of(Image.effect_noise((64, 64), 50)).getvalue()
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CogViewError, match=r"cut\.png"):
        read_image(path)


def test_a_folder_is_told_as_such(tmp_path):
    with pytest.raises(CogViewError, match="a folder"):
        read_image(tmp_path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CogViewError, match="no such file"):
        read_image(tmp_path / "none.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(CogViewError, match=r"a\.png: a pipe or a device"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (8, 8), (3, 5)])
def test_the_middle_square_is_kept(size):
    image = Image.new("RGB", size, "red")
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste("blue", (left, top, left + side, top + side))
    square = resize_and_crop(image, 16)
    assert square.size == (16, 16)
    # The filter rings near the cut, so an almost pure blue is asked for.
    assert (abs(np.asarray(square).astype(int)[4:12, 4:12] - (0, 0, 255)) < 40).all()


def test_arrays_and_images_round_trip_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    array = image_to_array(Image.fromarray(pixels))
    assert array.shape == (3, 5, 7)
    assert array.dtype == np.float32
    assert -1.0 <= array.min() <= array.max() <= 1.0
    (image,) = tensor_to_images(torch.from_numpy(array)[None])
    assert np.array_equal(np.asarray(image), pixels)


def test_black_white_and_overshoot_clip_to_the_ends():
    image = torch.tensor([-3.0, -1.0, 1.0, 3.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert [pixel[0] for pixel in np.asarray(tensor_to_images(image)[0])[0].tolist()] == [0, 0, 255, 255]


def test_bytes_become_floats_between_the_ends():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    assert as_float(images).flatten().tolist() == [-1.0, 1.0]
