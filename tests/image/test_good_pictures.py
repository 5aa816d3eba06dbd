"""The pixels decide whether a picture is good: EXIF, texts and profiles may be anything."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from cogview.image.orientation import orientation_told
from cogview.image.picture_reading import UnusableImage, read_image, read_image_and_changes

PLAIN = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8))
WORDS = {  # of exifread, by EXIF orientation
    1: "Horizontal (normal)",
    2: "Mirrored horizontal",
    3: "Rotated 180",
    4: "Mirrored vertical",
    5: "Mirrored horizontal then rotated 90 CCW",
    6: "Rotated 90 CW",
    7: "Mirrored horizontal then rotated 90 CW",
    8: "Rotated 90 CCW",
}


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}), **options)
    return file.getvalue()


def pixels(data: bytes, orientation: int | None = None) -> np.ndarray:
    return np.asarray(read_image_and_changes(io.BytesIO(data), orientation=orientation).rgb)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as the standard says: where the first row and the first column of what is stored belong."""
    image = image.transpose(1, 0, 2) if orientation > 4 else image
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def exif_of(*fields: tuple[int, int, int, bytes]) -> bytes:
    """Return EXIF of tags, types, counts and four bytes of value."""
    entries = b"".join(struct.pack("<HHI4s", *field) for field in fields)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(4)


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return (
        png[:33] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum) + png[33:]
    )


odd_fields = st.tuples(
    st.integers(0x100, 0xFFFF).filter(lambda tag: tag != 0x112),
    st.integers(1, 12),
    st.integers(0, 3),
    st.binary(min_size=4, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(1, 8), st.lists(odd_fields, max_size=3))
@example("JPEG", 6, [(0x100, 9, 1, struct.pack("<i", -5))])
@example("JPEG", 8, [(0x213, 11, 1, struct.pack("<f", 1.5))])
@example("JPEG", 5, [(0x103, 2, 3, b"6\0\0\0")])
def test_the_orientation_counts_whatever_else_the_exif_says(
    kind: str, orientation: int, fields: list[tuple[int, int, int, bytes]]
) -> None:
    plain = file_of(PLAIN, kind)
    exif = exif_of(*fields, (0x112, 3, 1, struct.pack("<HH", orientation, 0)))
    if kind == "JPEG":
        data = with_segment(plain, 0xE1, exif)
    elif kind == "PNG":
        data = with_chunk(plain, b"eXIf", exif[6:])
    else:
        data = file_of(PLAIN, kind, exif=exif)
    assert np.array_equal(pixels(data), turned(pixels(plain), orientation))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
    st.binary(max_size=60),
    st.sampled_from([b"", b"Exif\0\0", b"II*\0"]),
)
@example("PNG", b"b'Exif\\x00\\x00MM'", b"")
@example("WEBP", b"nonsense nonsense", b"Exif\0\0")
def test_exif_that_is_none_leaves_the_pixels_alone(kind: str, junk: bytes, start: bytes) -> None:
    plain, exif = file_of(PLAIN, kind), start + junk
    if kind == "JPEG":
        data = with_segment(plain, 0xE1, exif)
    elif kind == "PNG":
        data = with_chunk(plain, b"eXIf", exif)
    else:
        data = file_of(PLAIN, kind, exif=exif)
    assert np.array_equal(pixels(data), pixels(plain))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0xE0, 0xE2, 0xE3, 0xED, 0xEE, 0xFE]), st.binary(max_size=40), st.integers(0, 4))
def test_segments_of_a_jpeg_that_hold_no_pixels_may_hold_anything(
    marker: int, content: bytes, which: int
) -> None:
    start = (b"", b"JFIF\0", b"ICC_PROFILE\0", b"MPF\0", b"Photoshop 3.0\0")[which]
    plain = file_of(PLAIN, "JPEG")
    assert np.array_equal(pixels(with_segment(plain, marker, start + content)), pixels(plain))


LONG = zlib.compress(b"x" * 2_000_000)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"workflow\0\0" + LONG),
        (b"iTXt", b"workflow\0\1\0\0\0" + LONG),
        (b"iCCP", b"profile\0\0" + LONG),
        (b"iCCP", b"profile\0\7?"),
        (b"zTXt", b"Raw profile type exif\0\0" + LONG),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n   10\nzznothex")),
        (b"pHYs", b"\1"),
        (b"gAMA", b""),
        (b"tIME", b""),
    ],
)
def test_texts_and_profiles_of_a_png_may_hold_anything(kind: bytes, content: bytes, behind: bool) -> None:
    clear = Image.new("RGBA", (3, 2), (255, 0, 0, 0))
    for plain in (file_of(PLAIN, "PNG"), file_of(clear.quantize(2), "PNG")):
        data = with_chunk(plain, kind, content)
        if behind:  # the pixels
            place = plain.index(b"IEND") - 4
            data = plain[:place] + data[33 : 33 + len(content) + 12] + plain[place:]
        assert np.array_equal(pixels(data), pixels(plain))
        assert np.array_equal(pixels(with_chunk(plain, kind, content, checksum=1)), pixels(plain))


def test_a_long_text_beside_the_orientation_leaves_that_alone() -> None:
    plain = file_of(PLAIN, "PNG")
    exif = exif_of((0x112, 3, 1, struct.pack("<HH", 6, 0)))
    profile = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    for kind, content in (
        (b"eXIf", exif[6:]),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>'),
    ):
        data = with_chunk(with_chunk(plain, kind, content), b"zTXt", b"workflow\0\0" + LONG)
        assert np.array_equal(pixels(data), turned(pixels(plain), 6))


def test_texts_that_are_long_together_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    plain = file_of(PLAIN, "PNG")
    data = with_chunk(with_chunk(plain, b"tEXt", b"a\0" + b"x" * 600), b"tEXt", b"b\0" + b"x" * 600)
    assert np.array_equal(pixels(data), pixels(plain))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_pixels_that_are_cut_off_stay_damage_whatever_lies_beside(share: float) -> None:
    plain = file_of(Image.effect_noise((64, 64), 50), "PNG")
    data = with_chunk(plain[: int(len(plain) * share)], b"zTXt", b"workflow\0\0" + LONG)
    with pytest.raises(UnusableImage) as refusal:
        read_image(io.BytesIO(data))
    assert refusal.value.fault in ("truncated", "damaged")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_img2dataset_tells_beside_a_picture_sets_it_upright(orientation: int) -> None:
    plain = file_of(PLAIN, "PNG")
    told = orientation_told(json.dumps({"Image Make": "x", "Image Orientation": WORDS[orientation]}))
    assert told == orientation_told({"Orientation": orientation}) == orientation
    assert np.array_equal(pixels(plain, told), turned(pixels(plain), orientation))
    read = read_image_and_changes(io.BytesIO(plain), orientation=told)
    assert read.changes == (("turned",) if orientation > 1 else ())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("own", [1, 6])
def test_what_the_file_itself_tells_goes_first_and_is_done_once(kind: str, own: int) -> None:
    if kind == "AVIF" and (own == 1 or not features.check("avif")):
        pytest.skip("this Pillow has no AVIF, or its files do not tell that they are upright")
    exif = Image.Exif()
    exif[0x112] = own
    data = file_of(PLAIN, kind, exif=exif)
    assert np.array_equal(pixels(data, orientation=3), pixels(data))
    assert pixels(data).shape == ((6, 4, 3) if own == 6 else (4, 6, 3))


@pytest.mark.parametrize(
    "exif", [None, "{}", '{"Image Orientation": "0"}', "no JSON", 3, {"Orientation": None}]
)
def test_where_no_orientation_is_told_there_is_none(exif: object) -> None:
    assert orientation_told(exif) is None


@pytest.mark.parametrize("exif", ['{"Image Orientation": "upside"}', '{"Orientation": 9}', '{"Orientation'])
def test_an_orientation_that_is_not_known_is_told(exif: str) -> None:
    with pytest.raises(ValueError, match='"exif"'):
        orientation_told(exif)
