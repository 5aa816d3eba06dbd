"""Further decoders of an image tokenizer: they draw its codes at several sizes and change nothing else."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from cogview.errors import CogViewError, UsageError
from cogview.image.decoder import CodeNeighbourhood, RefiningDecoder, fingerprint_of_decoder
from cogview.image.decoder_config import DecoderConfig
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from tiny import tiny_image_tokenizer

SHAPE = DecoderConfig(
    scales=(1, 2, 4), neighbourhood=3, neighbourhood_channels=5, channels=(8, 6), num_blocks=(1, 1)
)


def random_decoder(
    tokenizer: ImageTokenizer, config: DecoderConfig = SHAPE, seed: int = 0
) -> RefiningDecoder:
    """Return a decoder of which every weight counts."""
    torch.manual_seed(seed)
    decoder = tokenizer.new_decoder(config)
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return decoder


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    return tiny_image_tokenizer()


@pytest.fixture
def codes() -> torch.Tensor:
    return torch.randint(0, 32, (2, 4, 3), generator=torch.Generator().manual_seed(0))


def test_a_new_decoder_changes_nothing_but_the_size(tokenizer, codes):
    plain = tokenizer.decode(codes)
    tokenizer.add_decoder("sharp", tokenizer.new_decoder(SHAPE))
    assert tokenizer.scales == [1, 2, 4]
    assert torch.equal(tokenizer.decode(codes, 16), plain)
    for scale in (2, 4):
        larger = F.interpolate(plain, scale_factor=float(scale), mode="bicubic").clamp(-1, 1)
        assert torch.equal(tokenizer.decode(codes, 16 * scale), larger)


def test_codes_and_the_own_decoder_stay_as_they_are(tokenizer, codes):
    images = torch.rand(2, 3, 16, 12) * 2 - 1
    before = tokenizer.fingerprint, tokenizer.decode(codes), tokenizer.encode(images)
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    assert tokenizer.fingerprint == before[0]
    assert torch.equal(tokenizer.decode(codes), before[1])
    assert torch.equal(tokenizer.encode(images), before[2])
    assert not torch.equal(tokenizer.decode(codes, 16), before[1])


def test_what_is_written_is_what_is_read(tokenizer, codes, tmp_path):
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    tokenizer.save_pretrained(tmp_path / "whole")
    loaded = load_image_tokenizer(tmp_path / "whole")
    assert list(loaded.decoders) == ["sharp"]
    for size in (16, 32, 64):
        assert torch.equal(loaded.decode(codes, size), tokenizer.decode(codes, size))
    tokenizer.save_pretrained(tmp_path / "half", torch.float16)
    half = load_image_tokenizer(tmp_path / "half")
    weights = load_file(tmp_path / "half" / "decoders" / "sharp" / "model.safetensors")
    assert {each.dtype for each in weights.values()} == {torch.float16}
    half.save_pretrained(tmp_path / "again")  # float32, but what is rounded stays so
    again = load_image_tokenizer(tmp_path / "again")
    assert fingerprint_of_decoder(again.decoders["sharp"]) == fingerprint_of_decoder(half.decoders["sharp"])


def test_a_table_of_half_the_bits_is_kept_so_and_draws_the_same(tokenizer, codes, tmp_path):
    decoder = random_decoder(tokenizer)
    rounded = {name: weight.half().float() for name, weight in decoder.state_dict().items()}
    decoder.load_state_dict(rounded)
    tokenizer.add_decoder("sharp", decoder)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load_image_tokenizer(tmp_path / "tokenizer")
    around = loaded.decoders["sharp"].from_neighbourhood
    assert around is not None
    assert around.vectors.weight.dtype == torch.float16
    assert torch.equal(loaded.decode(codes, 32), tokenizer.decode(codes, 32))


def test_smaller_pictures_are_means_of_the_largest(tokenizer, codes):
    first = tokenizer.first_drawing(codes)
    every = random_decoder(tokenizer)(*first)
    larger = {scale: F.interpolate(first[2], scale_factor=float(scale), mode="bicubic") for scale in (2, 4)}
    added = {scale: every[scale] - drawing for scale, drawing in ({1: first[2]} | larger).items()}
    for scale in (1, 2):
        torch.testing.assert_close(added[scale], F.avg_pool2d(added[4], 4 // scale), rtol=1e-4, atol=1e-5)


def even_ground_by_pixels(picture: torch.Tensor, drawing: torch.Tensor, levels: int) -> torch.Tensor:
    """Do slowly what `with_even_ground` does to one picture."""
    colours = Counter(
        tuple(((drawing[:, y, x].clamp(-1, 1) + 1) * 127.5).round().int().tolist())
        for y in range(drawing.shape[1])
        for x in range(drawing.shape[2])
    )
    colour, _ = colours.most_common(1)[0]
    ground = torch.tensor(colour) / 127.5 - 1
    evened = picture.clone()
    near = [
        float((pixel - ground).abs().max()) * 127.5 <= levels for pixel in drawing.clamp(-1, 1).flatten(1).T
    ]
    if sum(near) < 0.1 * len(near):
        return evened
    for y in range(picture.shape[1]):
        for x in range(picture.shape[2]):
            away = float((picture[:, y, x] - ground).abs().max()) * 127.5
            share = min(max(away / levels - 1.0, 0.0), 1.0)
            evened[:, y, x] = ground + share * (picture[:, y, x] - ground)
    return evened


def test_an_even_ground_is_that_of_each_picture_alone(tokenizer):
    decoder = random_decoder(tokenizer, replace(SHAPE, ground_levels=12))
    random = torch.Generator().manual_seed(0)
    drawings = torch.rand(3, 3, 8, 8, generator=random) * 2 - 1
    drawings[0, :, 3:] = torch.tensor([0.3, -0.1, 0.9])[:, None, None]  # most of it is one colour
    drawings[1, :, 0, :7] = -1.2  # just enough, and darker than black; the third has no ground
    pictures = drawings.repeat_interleave(2, 2).repeat_interleave(2, 3)
    pictures = pictures + 0.05 * torch.randn(pictures.shape, generator=random)
    evened = decoder.with_even_ground(pictures, drawings)
    for index, (picture, drawing) in enumerate(zip(pictures, drawings, strict=True)):
        alone = decoder.with_even_ground(picture[None], drawing[None])[0]
        assert torch.equal(evened[index], alone)
        torch.testing.assert_close(alone, even_ground_by_pixels(picture, drawing, 12))
    assert torch.equal(evened[2], pictures[2])
    assert not torch.equal(evened[1], pictures[1])
    [rounded] = ((evened[:1] + 1) * 127.5).round().unbind()
    assert (rounded == torch.tensor([166, 115, 242])[:, None, None]).all(0).float().mean() > 0.4
    untouched = random_decoder(tokenizer).with_even_ground(pictures, drawings)
    assert untouched is pictures


def test_only_the_wanted_size_is_drawn(tokenizer, codes):
    decoder = random_decoder(tokenizer)
    first = tokenizer.first_drawing(codes)
    every = decoder(*first)
    assert set(every) == {1, 2, 4}
    for scale in every:
        alone = decoder(*first, [scale])
        assert set(alone) == {scale}
        assert torch.equal(alone[scale], every[scale])
        assert alone[scale].shape == (2, 3, 16 * scale, 12 * scale)


def test_a_neighbourhood_is_a_sum_of_vectors_by_code_and_place():
    torch.manual_seed(0)
    layer = CodeNeighbourhood(num_codes=7, side=3, width=4, channels=6)
    codes = torch.randint(0, 7, (2, 3, 5))
    found = layer(codes)
    sums = torch.zeros(2, 3, 5, 4)
    for row in range(3):
        for column in range(5):
            for place in range(9):
                y, x = row + place // 3 - 1, column + place % 3 - 1
                is_inside = 0 <= y < 3 and 0 <= x < 5
                number = codes[:, y, x] + 1 if is_inside else torch.zeros(2, dtype=torch.long)
                sums[:, row, column] += layer.vectors.weight[place * 8 + number]
    torch.testing.assert_close(found, layer.project(sums.permute(0, 3, 1, 2)))


@pytest.mark.parametrize("channels", [(8,), (8, 6), (8, 6, 4), (8, 6, 4, 4)])
def test_doublings_may_be_fewer_or_more_than_the_code_has_pixels(tokenizer, codes, channels):
    """A code is 4 x 4 pixels here: three doublings make eight places a side, which scales 2 and 4 can fill."""
    config = DecoderConfig(scales=(2, 4), channels=channels, num_blocks=(1,) * len(channels))
    tokenizer.add_decoder("other", random_decoder(tokenizer, config))
    assert tokenizer.decode(codes, 32).shape == (2, 3, 32, 24)
    assert tokenizer.decode(codes, 64).shape == (2, 3, 64, 48)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"scales": (1,), "channels": (8, 6, 4, 4), "num_blocks": (1, 1, 1, 1)}, "4 pixels at scale 1"),
        ({"scales": (3,)}, "some of 1, 2 and 4"),
        ({"scales": (2, 2)}, "each once"),
        ({"scales": ()}, "some of 1, 2 and 4"),
        ({"channels": (8,)}, "one length"),
        ({"channels": (8, 0)}, "at least 1"),
        ({"l1_weight": float("nan")}, "not be negative"),
        ({"judged_pixels": 8}, "leave nothing"),
        ({"ground_levels": 256}, "0 to 255"),
        ({"neighbourhood": 2}, "must be odd"),
        ({"kernel_size": 2}, "must be odd"),
    ],
)
def test_shapes_that_cannot_be_are_refused(tokenizer, changes, complaint):
    values = {"scales": (1, 2), "channels": (8, 6), "num_blocks": (1, 1)} | changes
    with pytest.raises(UsageError, match=complaint):
        tokenizer.new_decoder(DecoderConfig(**values))


def test_a_size_that_no_decoder_draws_is_refused_with_those_there_are(tokenizer, codes):
    with pytest.raises(UsageError, match=r"32 pixels .* 16; `cogview train decoder`"):
        tokenizer.decode(codes, 32)
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    with pytest.raises(UsageError, match="16 or 32 or 64"):
        tokenizer.decode(codes, 48)


def test_two_decoders_of_one_size_are_refused(tokenizer, tmp_path):
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    tokenizer.add_decoder("sharp", random_decoder(tokenizer, seed=1))  # in its place
    other = DecoderConfig(scales=(2,), channels=(8, 6), num_blocks=(1, 1))
    with pytest.raises(UsageError, match=r"sharp and other .* 2"):
        tokenizer.add_decoder("other", random_decoder(tokenizer, other))
    tokenizer.save_pretrained(tmp_path / "both")
    folder = tmp_path / "both" / "decoders"
    (folder / "sharp").rename(folder / "a")
    tokenizer.save_pretrained(tmp_path / "one")
    (tmp_path / "one" / "decoders" / "sharp").rename(folder / "b")
    with pytest.raises(CogViewError, match="a and b"):
        load_image_tokenizer(tmp_path / "both")


def test_a_decoder_for_other_codes_is_refused(tokenizer, tmp_path):
    other = tiny_image_tokenizer(num_codes=16)
    other.add_decoder("sharp", random_decoder(other))
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "own")
    (tmp_path / "other" / "decoders").rename(tmp_path / "own" / "decoders")
    with pytest.raises(CogViewError, match=f"for the image tokenizer {other.fingerprint}"):
        load_image_tokenizer(tmp_path / "own")
    wide = RefiningDecoder(SHAPE, num_codes=32, code_size=9, downsampling_factor=4)
    with pytest.raises(UsageError, match="for other codes"):
        tokenizer.add_decoder("wide", wide)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda content: content | {"format": "cogview"}, "not a decoder"),
        (lambda content: content | {"version": 2}, "version 2"),
        (lambda content: content | {"config": {"scales": [1, 2], "colour": 3}}, "not valid"),
        (lambda content: content | {"config": content["config"] | {"num_blocks": [10**9, 1]}}, "1,000,000,0"),
        (lambda content: content | {"config": content["config"] | {"channels": [10**9, 6]}}, "not those of"),
        (lambda content: content | {"config": content["config"] | {"channels": [8, 7]}}, "not those of"),
        (lambda content: content | {"config": content["config"] | {"scales": [True, 2, 4]}}, "not valid"),
        (lambda content: content | {"fingerprint": "0" * 16}, "belong to different decoders"),
        (lambda _: None, "not a decoder"),
    ],
)
def test_a_folder_that_is_wrong_is_refused_in_words(tokenizer, tmp_path, change, complaint):
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    tokenizer.save_pretrained(tmp_path / "whole")
    path = tmp_path / "whole" / "decoders" / "sharp" / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CogViewError, match=complaint):
        load_image_tokenizer(tmp_path / "whole")


def test_missing_and_damaged_files_are_told(tokenizer, tmp_path):
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    tokenizer.save_pretrained(tmp_path / "whole")
    folder = tmp_path / "whole" / "decoders" / "sharp"
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, folder / "model.safetensors")
    with pytest.raises(CogViewError, match="copy the folder again"):
        load_image_tokenizer(tmp_path / "whole")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CogViewError, match=re.escape(str(folder / "model.safetensors"))):
        load_image_tokenizer(tmp_path / "whole")
    (folder / "config.json").unlink()
    with pytest.raises(CogViewError, match="is missing"):
        load_image_tokenizer(tmp_path / "whole")
    (folder / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="sharp .*decoder"):
        assert not load_image_tokenizer(tmp_path / "whole").decoders


def test_saving_over_a_folder_loses_no_decoder(tokenizer, tmp_path):
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    tokenizer.save_pretrained(tmp_path / "folder")
    with pytest.raises(CogViewError, match="decoder sharp"):
        tiny_image_tokenizer().save_pretrained(tmp_path / "folder")
    assert list(load_image_tokenizer(tmp_path / "folder").decoders) == ["sharp"]
    tokenizer.save_pretrained(tmp_path / "folder")  # it has it
    (tmp_path / "folder" / "decoders" / "sharp" / "notes.txt").write_text("mine")
    with pytest.raises(CogViewError, match=re.escape("decoders/sharp/notes.txt")):
        tokenizer.save_pretrained(tmp_path / "folder")


def test_files_of_a_tokenizer_are_few(tokenizer, tmp_path: Path):
    tokenizer.add_decoder("sharp", random_decoder(tokenizer))
    tokenizer.save_pretrained(tmp_path / "folder")
    files = sorted(
        path.relative_to(tmp_path / "folder").as_posix() for path in (tmp_path / "folder").rglob("*.*")
    )
    assert files == [
        "config.json",
        "decoders/sharp/config.json",
        "decoders/sharp/model.safetensors",
        "model.safetensors",
    ]
