"""How much of a picture an image tokenizer keeps, and what it says of that in its folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import tiny_image_tokenizer

from cogview.errors import CogViewError
from cogview.image.reconstruction_quality import ReconstructionQuality, kept_db
from cogview.image.tokenizer import load_image_tokenizer


def test_it_is_the_mean_over_squares_of_their_psnr_with_a_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 12, generator=generator) * 2 - 1
    copies = images.clone()
    copies[:, :, :4] += torch.randn(2, 3, 4, 12, generator=generator) * 0.2
    expected = []
    for image, copy in zip(images.numpy(), copies.numpy(), strict=True):
        squares = []
        for row in range(0, 8, 4):
            for column in range(0, 12, 4):
                cut = np.s_[:, row : row + 4, column : column + 4]
                error = np.mean(((image[cut] - copy[cut]) / 2) ** 2)
                squares.append(min(40.0, -10 * np.log10(error)) if error else 40.0)
        expected.append(np.mean(squares))
    np.testing.assert_allclose(kept_db(images, copies, 4), expected, rtol=1e-5)


def test_a_tokenizer_measures_by_its_own_squares() -> None:
    tokenizer = tiny_image_tokenizer()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    codes = tokenizer.encode(images)
    expected = kept_db(images, tokenizer.decode(codes), tokenizer.downsampling_factor)
    assert torch.equal(tokenizer.kept_db(images), expected)
    assert torch.equal(tokenizer.kept_db(images, codes), expected)


def test_the_bound_is_under_all_but_one_in_a_hundred() -> None:
    values = torch.linspace(20, 30, 1001)
    kept = ReconstructionQuality.of(values.split(100))
    assert kept == ReconstructionQuality(num_pictures=1001, median_db=25.0, least_db=20.1)


def test_a_folder_keeps_it_and_has_the_same_fingerprint(tmp_path: Path) -> None:
    tokenizer = tiny_image_tokenizer()
    tokenizer.save_pretrained(tmp_path / "without")
    assert load_image_tokenizer(tmp_path / "without").held_out is None
    tokenizer.held_out = ReconstructionQuality(num_pictures=7, median_db=30.5, least_db=20.25)
    tokenizer.save_pretrained(tmp_path / "with")
    read = load_image_tokenizer(tmp_path / "with")
    assert (read.held_out, read.fingerprint) == (tokenizer.held_out, tokenizer.fingerprint)


@pytest.mark.parametrize("held_out", [None, [], {"num_pictures": 1}, {"median_db": 50.0}, {"least_db": 39.0}])
def test_what_it_cannot_be_is_refused(tmp_path: Path, held_out: object) -> None:
    tokenizer = tiny_image_tokenizer()
    tokenizer.held_out = ReconstructionQuality(num_pictures=7, median_db=30.5, least_db=20.25)
    tokenizer.save_pretrained(tmp_path / "with")
    path = tmp_path / "with" / "config.json"
    content = json.loads(path.read_text())
    if isinstance(held_out, dict) and "num_pictures" not in held_out:
        held_out = content["held_out"] | held_out
    path.write_text(json.dumps(content | {"held_out": held_out}))
    with pytest.raises(CogViewError, match="held_out"):
        load_image_tokenizer(tmp_path / "with")
