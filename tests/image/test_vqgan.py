"""The VQGAN's shapes, and its adversary against the definitions."""

import dataclasses

import pytest
import torch
from torch import nn

from cogview.errors import UsageError
from cogview.image.adversary import PatchDiscriminator, adaptive_weight, discriminator_hinge_loss
from cogview.image.config import VQGANConfig
from cogview.image.fingerprint import fingerprint_of_weights
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from cogview.image.vqgan import VQGAN, GridAttention, inverse_haar

TINY = VQGANConfig(
    num_codes=16,
    code_size=8,
    channels=32,
    channel_factors=(1, 1, 2),
    num_blocks=1,
    attention_grids=(2,),
    inner_size=16,
)


def vqgan_of(config: VQGANConfig = TINY) -> VQGAN:
    torch.manual_seed(0)
    vqgan = VQGAN(config).eval()
    vqgan.quantizer.mark_initialised()
    return vqgan


def images(side: int = 16, num: int = 2) -> torch.Tensor:
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("factors", [(1, 1, 2), (1, 2, 2, 4)])
def test_a_code_stands_for_a_square_of_the_factor(factors):
    config = VQGANConfig(
        num_codes=16, code_size=8, channels=32, channel_factors=factors, num_blocks=1, attention_grids=()
    )
    vqgan = vqgan_of(config)
    side = 3 * config.downsampling_factor
    codes = vqgan.encode(images(side))
    assert codes.shape == (2, 3, 3)
    assert vqgan.decode(codes).shape == (2, 3, side, side)


def test_the_bottom_may_have_no_attention():
    without = vqgan_of(dataclasses.replace(TINY, bottom_attentions=0))
    assert not any("bottom.1" in name for name in without.state_dict())
    same = vqgan_of(TINY)
    same.load_state_dict(without.state_dict(), strict=False)
    for half in (same.encoder, same.decoder):
        nn.init.zeros_(half.bottom[1].output.weight)
        nn.init.zeros_(half.bottom[1].output.bias)
    codes = without.encode(images())
    assert torch.equal(same.encode(images()), codes)
    assert torch.equal(same.decode(codes), without.decode(codes))


def test_wavelets_draw_twice_the_size_and_its_means(tmp_path):
    vqgan = vqgan_of(dataclasses.replace(TINY, decoder_output="wavelets"))
    nn.init.normal_(vqgan.decoder.to_pixels.weight, std=0.01)
    tokenizer = ImageTokenizer(vqgan)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load_image_tokenizer(tmp_path / "tokenizer")
    assert loaded.scales == [1, 2]
    codes = loaded.encode(images())
    small, large = loaded.decode(codes), loaded.decode(codes, 32)
    assert torch.equal(small, loaded.decode(codes, 16))
    assert (small.shape[2:], large.shape[2:]) == ((16, 16), (32, 32))
    assert large.abs().max() < 1
    torch.testing.assert_close(nn.functional.avg_pool2d(large, 2), small)
    assert (large[:, :, ::2] - large[:, :, 1::2]).abs().max() > 0.01
    with pytest.raises(UsageError, match="with 16 or 32"):
        loaded.decode(codes, 64)


def test_the_inverse_haar_transform_undoes_the_transform_by_definition():
    pictures = images(8)
    a, b, c, d = (pictures[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1))
    low = (a + b + c + d) / 2
    bands = torch.stack([(a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2], 2)
    torch.testing.assert_close(inverse_haar(torch.cat([low, bands.flatten(1, 2)], 1)), pictures)


def test_fields_added_since_0_2_leave_fingerprints_as_they_were():
    assert fingerprint_of_weights(TINY, {"a": torch.ones(2)}) == "20e455462107f427"


@pytest.mark.slow
def test_800_pixels_are_50_codes_a_side_in_the_shape_that_was_published():
    with torch.device("meta"):
        vqgan = VQGAN(VQGANConfig())
        vectors = vqgan.encoder(torch.empty(1, 3, 800, 800))
        pixels = vqgan.decoder(vectors)
    assert vectors.shape == (1, 256, 50, 50)
    assert pixels.shape == (1, 3, 800, 800)
    assert VQGANConfig(channel_factors=(1, 2, 2, 4), attention_grids=(3,)).downsampling_factor == 8


def test_attention_is_softmax_over_all_places():
    torch.manual_seed(0)
    attention = GridAttention(32, TINY)
    x = torch.randn(2, 32, 3, 4)
    normed = attention.norm(x)
    query, key, value = (
        nn.functional.conv2d(normed, layer.weight, layer.bias).flatten(2)
        for layer in (attention.query, attention.key, attention.value)
    )
    weights = torch.softmax(torch.einsum("bci,bcj->bij", query, key) * 32**-0.5, dim=2)
    seen = torch.einsum("bij,bcj->bci", weights, value).view(x.shape)
    torch.testing.assert_close(attention(x), x + attention.output(seen), rtol=1e-4, atol=1e-5)


def test_a_folder_gives_the_same_codes_and_says_its_kind(tmp_path):
    tokenizer = ImageTokenizer(vqgan_of())
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load_image_tokenizer(tmp_path / "tokenizer")
    assert isinstance(loaded.autoencoder, VQGAN)
    assert loaded.fingerprint == tokenizer.fingerprint
    codes = tokenizer.encode(images())
    assert torch.equal(loaded.encode(images()), codes)
    assert torch.equal(loaded.decode(codes), tokenizer.decode(codes))


def test_hinge_loss_is_its_definition():
    on_real, on_decoded = torch.tensor([[[[2.0, 0.5]]]]), torch.tensor([[[[-3.0, 0.25]]]])
    expected = ((0.0 + 0.5) / 2 + (0.0 + 1.25) / 2) / 2
    assert float(discriminator_hinge_loss(on_real, on_decoded)) == pytest.approx(expected)


def test_adaptive_weight_makes_both_pull_equally_hard():
    layer = torch.tensor([1.0, -2.0], requires_grad=True)
    reconstruction, adversarial = (3.0 * layer).square().sum(), 0.1 * layer.sum()
    weight = adaptive_weight(reconstruction, adversarial, layer)
    pulls = [
        torch.autograd.grad(loss, layer, retain_graph=True)[0].norm()
        for loss in (reconstruction, weight * adversarial)
    ]
    assert float(pulls[1]) == pytest.approx(float(pulls[0]), rel=1e-2)
    assert not weight.requires_grad


def test_the_discriminator_judges_pictures_by_themselves_and_patch_by_patch():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8, 2)
    pictures = images(32, num=3)
    verdicts = discriminator(pictures)
    assert verdicts.shape[:2] == (3, 1)
    assert verdicts.shape[2] > 1
    torch.testing.assert_close(discriminator(pictures[1:2]), verdicts[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": 33}, "multiples of norm_groups 32"),
        ({"attention_grids": (5,)}, "must lie in 0..4"),
        ({"num_blocks": 0}, "at least 1"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"perceptual_weight": -1.0}, "must not be negative"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        VQGANConfig(**changes)


def test_the_last_norm_keeps_colours_where_its_groups_have_some_channels():
    """A norm of single channels forgets what is added to a channel everywhere, such as a ground's colour."""
    torch.manual_seed(0)
    features, colour = torch.randn(1, 32, 8, 8), torch.randn(1, 32, 1, 1)

    def change(norm_groups: int) -> float:
        norm = VQGAN(dataclasses.replace(TINY, norm_groups=norm_groups)).decoder.norm
        return float((norm(features + colour) - norm(features)).detach().abs().mean())

    assert change(32) < 1e-5
    assert change(8) > 0.3


@torch.no_grad()
def test_a_new_one_adds_nothing_on_the_way_and_keeps_the_size_of_what_passes():
    torch.manual_seed(0)
    vqgan = VQGAN(dataclasses.replace(TINY, channel_factors=(1, 2, 2), norm_groups=8))
    x = torch.randn(2, 32, 8, 8)
    block = vqgan.decoder.grids[-1].blocks[-1]
    assert torch.equal(block(x), x)
    deep = torch.randn(2, 64, 4, 4)
    assert torch.equal(vqgan.encoder.bottom(deep), deep), "blocks and attention"
    vectors = vqgan.encoder(torch.randn(4, 3, 32, 32))
    assert 0.2 < vectors.std() < 2.0
    assert 0.2 < vqgan.decoder(torch.randn(4, TINY.code_size, 8, 8)).std() < 2.0
