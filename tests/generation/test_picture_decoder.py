"""A picture has the same pixels on any number of threads, alone and beside others, unless its decoder is large."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import cogview
from cogview.generation import picture_decoder
from cogview.generation.picture_decoder import PictureDecoder
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from cogview.models.config import BUNDLED_FOLDER
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


@pytest.mark.slow
def test_pixels_are_the_same_on_any_number_of_threads(
    bundled: ImageTokenizer, alone: list[bytes], num_threads: int
) -> None:
    decoder = PictureDecoder(bundled)
    assert [decoder.decode(codes, 256).tobytes() for codes in some_codes(4)] == alone
    assert [each.tobytes() for each in decoder.decode_each(some_codes(4), 256)] == alone
    assert torch.get_num_threads() == num_threads


def test_a_large_decoder_gets_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_image_tokenizer()
    used = []
    plain = tokenizer.decode

    def decode(codes: torch.Tensor, size_pixels: int | None = None) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return plain(codes, size_pixels)

    monkeypatch.setattr(tokenizer, "decode", decode)
    monkeypatch.setattr(picture_decoder, "MAX_SINGLE", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(PictureDecoder(tokenizer).decode_each(torch.zeros(2, 2, 2, dtype=torch.int64)))
    finally:
        torch.set_num_threads(before)
    assert used[-2:] == [2, 2]


@pytest.mark.parametrize(("most", "is_small"), [(1_300_000_000, False), (1_310_000_000, True)])
@pytest.mark.slow
def test_the_work_of_a_decoder_is_counted(
    bundled: ImageTokenizer, alone: list[bytes], monkeypatch: pytest.MonkeyPatch, most: int, is_small: bool
) -> None:
    decoder = PictureDecoder(bundled)
    monkeypatch.setattr(picture_decoder, "MAX_SINGLE", most)
    drawn = [each.tobytes() for each in decoder.decode_each(some_codes(4), 256)]
    assert decoder._is_small == {(256, 16, 16): is_small}
    if is_small:
        assert drawn == alone
    assert not any(module._forward_hooks for module in bundled.autoencoder.modules())


def test_what_other_threads_decode_is_not_counted(
    bundled: ImageTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_decoder, "MAX_SINGLE", 1_310_000_000)
    plain = bundled.decode

    def beside_another(codes: torch.Tensor, size_pixels: int | None = None) -> torch.Tensor:
        with ThreadPoolExecutor() as other:
            other.submit(plain, codes, size_pixels).result()
        return plain(codes, size_pixels)

    monkeypatch.setattr(bundled, "decode", beside_another)
    decoder = PictureDecoder(bundled)
    decoder.decode(some_codes(1)[0], 256)
    assert decoder._is_small == {(256, 16, 16): True}


def test_a_failure_beside_others_is_told(bundled: ImageTokenizer) -> None:
    with pytest.raises(cogview.UsageError, match="codes must lie in"):
        list(PictureDecoder(bundled).decode_each(torch.full((3, 16, 16), 9999), 128))
