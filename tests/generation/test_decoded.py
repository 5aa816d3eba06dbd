"""A picture has the same pixels on any number of threads, alone and beside others, unless its decoder is large."""

from collections.abc import Iterator

import pytest
import torch

import cogview
from cogview.generation import decoded
from cogview.generation.decoded import PictureDecoder
from cogview.generation.pretrained import BUNDLED_FOLDER
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from tiny import tiny_image_tokenizer


@pytest.fixture(scope="module")
def bundled() -> ImageTokenizer:
    return load_image_tokenizer(BUNDLED_FOLDER / "image_tokenizer")


@pytest.fixture(params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def some_codes(num: int) -> torch.Tensor:
    return torch.randint(2048, (num, 16, 16), generator=torch.Generator().manual_seed(num))


@pytest.fixture(scope="module")
def alone(bundled: ImageTokenizer) -> list[bytes]:
    decoder = PictureDecoder(bundled)
    return [decoder.decode(codes, 256).tobytes() for codes in some_codes(4)]


def test_pixels_are_the_same_on_any_number_of_threads(
    bundled: ImageTokenizer, alone: list[bytes], num_threads: int
) -> None:
    decoder = PictureDecoder(bundled)
    assert [decoder.decode(codes, 256).tobytes() for codes in some_codes(4)] == alone
    begun = [decoder.begin(codes, 256, lambda image: image) for codes in some_codes(4)]
    assert [each.result().tobytes() for each in begun] == alone
    assert torch.get_num_threads() == num_threads


def test_a_large_decoder_gets_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_image_tokenizer()
    used = []
    plain = tokenizer.decode

    def decode(codes: torch.Tensor, size_pixels: int | None = None) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return plain(codes, size_pixels)

    monkeypatch.setattr(tokenizer, "decode", decode)
    monkeypatch.setattr(decoded, "MAX_SINGLE", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        begun = PictureDecoder(tokenizer).begin(
            torch.zeros(2, 2, dtype=torch.int64), None, lambda image: image
        )
        assert begun.done()
    finally:
        torch.set_num_threads(before)
    assert used[-1] == 2


def test_the_work_of_a_decoder_grows_with_the_picture(bundled: ImageTokenizer) -> None:
    decoder = PictureDecoder(bundled)
    for side in (8, 16):
        decoder.decode(torch.zeros(side, side, dtype=torch.int64), None)
    small, large = (decoder._works[None, side, side] for side in (8, 16))
    assert large == 4 * small
    assert 0.5e9 < large < decoded.MAX_SINGLE


def test_a_failure_in_the_background_is_told(bundled: ImageTokenizer) -> None:
    with pytest.raises(cogview.UsageError, match="codes must lie in"):
        PictureDecoder(bundled).begin(torch.full((16, 16), 9999), 128, lambda image: image).result()
