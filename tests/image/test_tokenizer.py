"""The tokenizer's folder: what is written is what is read, and nothing else is accepted."""

import inspect
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cogview.errors import CogViewError, UsageError
from cogview.image.config import VQVAEConfig
from cogview.image.fingerprint import fingerprint_of
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from cogview.image.vqvae import VQVAE

TINY = VQVAEConfig(
    num_codes=16,
    code_size=4,
    encoder_channels=(8, 8),
    encoder_blocks=(0, 1),
    decoder_channels=(8, 8),
    decoder_blocks=(0, 0),
)


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(VQVAE(TINY))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_saved_tokenizer_gives_the_same_codes_pictures_and_fingerprint(tokenizer, images, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load_image_tokenizer(tmp_path / "tokenizer")
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 4, 3)
    assert torch.equal(loaded.encode(images), codes)
    assert torch.equal(loaded.decode(codes), tokenizer.decode(codes))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.config == tokenizer.config
    assert (loaded.num_codes, loaded.downsampling_factor) == (16, 4)
    assert not loaded.autoencoder.training


@pytest.mark.parametrize("inner", ["image_tokenizer", "model/image_tokenizer", "model"])
def test_a_tokenizer_is_found_in_the_folders_that_hold_one(tokenizer, tmp_path, inner):
    tokenizer.save_pretrained(tmp_path / inner)
    assert load_image_tokenizer(path=tmp_path).fingerprint == tokenizer.fingerprint


def test_half_precision_halves_the_file_and_is_another_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "full")
    tokenizer.save_pretrained(tmp_path / "half", dtype=torch.float16)
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    loaded = load_image_tokenizer(tmp_path / "half")
    assert loaded.fingerprint != tokenizer.fingerprint
    assert next(loaded.autoencoder.parameters()).dtype == torch.float32
    # Once rounded, it is itself for ever.
    loaded.save_pretrained(tmp_path / "again", dtype=torch.float16)
    assert load_image_tokenizer(tmp_path / "again").fingerprint == loaded.fingerprint


def test_the_fingerprint_sees_every_weight_and_the_config_but_no_training_state():
    torch.manual_seed(0)
    vqvae = VQVAE(TINY)
    fingerprint = fingerprint_of(vqvae)
    assert len(fingerprint) == 16
    vqvae.quantizer.cluster_size.add_(1.0)
    assert fingerprint_of(vqvae) == fingerprint
    vqvae.decoder[-1].bias.data[0] += 1e-3
    assert fingerprint_of(vqvae) != fingerprint


def test_a_loaded_tokenizer_can_be_trained_further(tokenizer, images, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    vqvae = load_image_tokenizer(tmp_path / "tokenizer").autoencoder.train()
    output = vqvae(images)
    assert not torch.equal(output.vectors, vqvae.quantizer.look_up(output.codes)), "the codebook is in use"
    before = vqvae.quantizer.embed.clone()
    vqvae.quantizer.update(output.vectors, output.codes, step=0)
    moved = (vqvae.quantizer.embed - before).norm(dim=1) / before.norm(dim=1)
    assert 0.0 < moved.max() < 0.5, "it moves on from the saved codebook"


def test_bfloat16_keeps_most_codes_and_hardly_changes_pictures(tokenizer, images, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    fast = load_image_tokenizer(tmp_path / "tokenizer", dtype=torch.bfloat16)
    codes = tokenizer.encode(images)
    assert (fast.encode(images) == codes).float().mean() > 0.5
    difference = (fast.decode(codes) - tokenizer.decode(codes)).abs().max()
    assert 0 < difference < 0.03, "the decoder computes in bfloat16, too, whose steps are 1/256"


def test_images_and_codes_that_do_not_fit_are_refused(tokenizer):
    with pytest.raises(UsageError, match=r"multiples of 4 .* 16 x 13"):
        tokenizer.encode(torch.zeros(1, 3, 16, 13))
    with pytest.raises(UsageError, match=r"codes.* 0\.\.15.* 3\.\.16"):
        tokenizer.decode(torch.tensor([[[3, 16]]]))


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(3, 16, 16)])
def test_bytes_and_a_picture_without_batch_are_not_taken_for_images(tokenizer, images):
    encode = inspect.unwrap(ImageTokenizer.encode)  # users have no checks of shapes around it
    with pytest.raises(UsageError, match=r"images .*floats in \[-1, 1\] .*\[b c y x\]"):
        encode(tokenizer, images)


@pytest.mark.parametrize("codes", [torch.zeros(1, 2, 2), torch.zeros(2, 2, dtype=torch.int64)])
def test_floats_and_a_grid_without_batch_are_not_taken_for_codes(tokenizer, codes):
    decode = inspect.unwrap(ImageTokenizer.decode)
    with pytest.raises(UsageError, match=r"codes .*\[b r s\]"):
        decode(tokenizer, codes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_codes_may_be_stored_in_fewer_bytes(tokenizer, dtype):
    decode, codes = inspect.unwrap(ImageTokenizer.decode), torch.tensor([[[3, 15]]])
    assert torch.equal(decode(tokenizer, codes.to(dtype)), tokenizer.decode(codes))


@pytest.mark.parametrize("name", ["pixel_mean", "pixel_std"])
def test_statistics_of_other_than_three_channels_are_refused(name):
    config = VQVAEConfig()
    object.__setattr__(config, name, (0.5, 0.5))  # the tests' checks of types would refuse it before us
    with pytest.raises(UsageError, match="three numbers each"):
        config.__post_init__()


def break_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_files_of_a_folder_are_as_readable_as_each_other(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    modes = {file.stat().st_mode for file in (tmp_path / "tokenizer").iterdir()}
    assert len(modes) == 1


def test_damaged_folders_are_refused_in_one_line(tokenizer, tmp_path):
    def saved(name):
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    def refusal(folder) -> str:
        with pytest.raises(CogViewError) as caught:
            load_image_tokenizer(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "config.json is missing" in refusal(tmp_path / "nowhere")

    folder = saved("version")
    break_config(folder, version=2)
    assert "version 2, this program reads version 1" in refusal(folder)

    folder = saved("format")
    break_config(folder, format="something")
    assert "not an image tokenizer" in refusal(folder)

    folder = saved("json")
    (folder / "config.json").write_text("{")
    assert "cannot be read" in refusal(folder)

    folder = saved("unknown")
    break_config(folder, config={"colour": 1})
    assert "configuration is not valid" in refusal(folder)

    folder = saved("fingerprint")
    break_config(folder, fingerprint="0" * 16)
    assert "belong to different tokenizers" in refusal(folder)

    folder = saved("cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    assert "model.safetensors cannot be read" in refusal(folder)

    folder = saved("missing")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors cannot be read" in refusal(folder)

    folder = saved("tensors")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("decoder.0.bias")
    save_file(tensors, folder / "model.safetensors")
    assert "decoder.0.bias" in refusal(folder)


def test_a_folder_of_something_else_is_never_replaced(tokenizer, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(CogViewError, match=r"thesis\.txt"):
        tokenizer.save_pretrained(folder)
    assert (folder / "thesis.txt").read_text() == "years of work"
    with pytest.raises(CogViewError, match="not replaced"):
        tokenizer.save_pretrained(folder / "thesis.txt")
    tokenizer.save_pretrained(tmp_path / "new")
    tokenizer.save_pretrained(tmp_path / "new")
    assert load_image_tokenizer(tmp_path / "new").fingerprint == tokenizer.fingerprint


def test_a_later_addition_to_the_config_leaves_older_fingerprints_as_they_are(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "new")
    path = tmp_path / "new" / "config.json"
    content = json.loads(path.read_text())
    assert content["config"].pop("encoder_kernel_size") == 4
    path.write_text(json.dumps(content))
    assert load_image_tokenizer(tmp_path / "new").fingerprint == tokenizer.fingerprint
