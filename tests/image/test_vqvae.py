"""The VQ-VAE's shapes, its losses, and what the released architecture must be."""

import dataclasses

import pytest
import torch
from torch import nn

from cogview.errors import UsageError
from cogview.image.config import VQVAEConfig
from cogview.image.vqvae import VQVAE

TINY = VQVAEConfig(
    num_codes=8,
    code_size=4,
    patch_size_pixels=2,
    encoder_channels=(8, 8),
    encoder_blocks=(0, 1),
    decoder_stem_channels=8,
    decoder_stem_blocks=1,
    decoder_channels=(8, 8),
    decoder_blocks=(1, 0),
    l1_weight=0.5,
)


def tiny_vqvae() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(TINY)


def images(height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_defaults_are_the_released_architecture():
    config = VQVAEConfig()
    vqvae = VQVAE(config)
    assert config.downsampling_factor == 8
    encoder = {
        name: tuple(weight.shape) for name, weight in vqvae.encoder.state_dict().items() if "weight" in name
    }
    decoder = {
        name: tuple(weight.shape) for name, weight in vqvae.decoder.state_dict().items() if "weight" in name
    }
    assert encoder == {
        "0.weight": (512, 3, 4, 4),
        "2.weight": (512, 512, 4, 4),
        "4.weight": (512, 512, 4, 4),
        "6.weight": (256, 512, 1, 1),
    }
    assert decoder == {
        "0.weight": (256, 512, 4, 4),
        "2.weight": (512, 512, 4, 4),
        "4.weight": (512, 512, 4, 4),
        "6.weight": (3, 512, 1, 1),
    }
    assert all(
        isinstance(vqvae.encoder[i], nn.ReLU) and isinstance(vqvae.decoder[i], nn.ReLU) for i in (1, 3, 5)
    )
    assert vqvae.quantizer.embed.shape == (8192, 256)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 8), (8, 40)])
def test_any_grid_goes_through_one_set_of_weights(height, width):
    vqvae = tiny_vqvae()
    codes = vqvae.encode(images(height, width))
    assert codes.shape == (2, height // 8, width // 8)
    decoded = vqvae.decode(codes)
    assert decoded.shape == (2, 3, height, width)
    assert decoded.abs().max() <= 1.0


def test_forward_agrees_with_encode_and_decode():
    vqvae = tiny_vqvae()
    vqvae.quantizer.is_initialised.fill_(True)
    output = vqvae(images())
    assert torch.equal(output.codes, vqvae.encode(images()))
    torch.testing.assert_close(output.reconstruction.detach().clamp(-1, 1), vqvae.decode(output.codes))


def test_loss_is_its_weighted_parts_and_psnr_is_of_pixels():
    vqvae = tiny_vqvae()
    vqvae.quantizer.is_initialised.fill_(True)
    output = vqvae(images())
    metrics = output.metrics
    torch.testing.assert_close(
        output.loss.detach(), metrics["l2"] + 0.5 * metrics["l1"] + metrics["commitment"]
    )
    error = (output.reconstruction - images()) / (2 * vqvae.pixel_std / 2)
    torch.testing.assert_close(metrics["l2"], error.detach().square().mean())
    zero_to_one = (output.reconstruction.detach().clamp(-1, 1) + 1) / 2 - (images() + 1) / 2
    of_each = -10 * zero_to_one.square().mean((1, 2, 3)).log10()
    assert len(of_each.unique()) > 1
    torch.testing.assert_close(metrics["psnr"], of_each.mean())


def test_every_weight_gets_a_gradient():
    vqvae = tiny_vqvae()
    vqvae.quantizer.is_initialised.fill_(True)
    # New residual blocks are the identity: their first convolution learns only once the last one has moved.
    for name, weight in vqvae.named_parameters():
        if "project" in name:
            nn.init.normal_(weight, std=0.1)
    vqvae(images()).loss.backward()
    silent = [name for name, weight in vqvae.named_parameters() if not weight.grad.abs().max() > 0]
    assert not silent


def test_pixels_are_normalised_by_the_statistics_of_zero_to_one():
    config = VQVAEConfig(num_codes=2, code_size=2, encoder_channels=(2,) * 3, decoder_channels=(2,) * 3)
    vqvae = VQVAE(config)
    mean = torch.tensor(config.pixel_mean).view(1, 3, 1, 1)
    std = torch.tensor(config.pixel_std).view(1, 3, 1, 1)
    torch.testing.assert_close(vqvae._normalise(images()), ((images() + 1) / 2 - mean) / std)
    torch.testing.assert_close(vqvae._denormalise(vqvae._normalise(images())), images())


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_channels": (8, 8)},
        {"num_codes": 0},
        {"decay": 1.0},
        {"decoder_stem_blocks": 1},
        {"pixel_std": (0.3, 0.0, 0.3)},
        {"encoder_channels": (), "encoder_blocks": (), "decoder_channels": (), "decoder_blocks": ()},
    ],
)
def test_contradicting_configurations_are_refused(changes):
    with pytest.raises(UsageError, match="image tokenizer"):
        VQVAEConfig(**changes)


@pytest.mark.parametrize("encoder_kernel_size", [2, 4])
def test_with_kernels_of_two_a_code_sees_its_own_pixels_alone(encoder_kernel_size):
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, encoder_blocks=(1, 1), encoder_kernel_size=encoder_kernel_size)
    encoder = VQVAE(config).encoder
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(1, 3, 40, 40)
    other = torch.randn(1, 3, 40, 40)
    other[:, :, 16:24, 8:16] = images[:, :, 16:24, 8:16]
    vectors, others = encoder(images), encoder(other)
    assert vectors.shape == (1, 4, 5, 5)
    assert torch.equal(vectors[:, :, 2, 1], others[:, :, 2, 1]) == (encoder_kernel_size == 2)
    different = (vectors != others).any(dim=1)
    assert different.sum() == 25 - (encoder_kernel_size == 2)
