"""The score and the kernel distance against their definitions, and against torch-fidelity where it is installed."""

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.distances import Gaussian
from cogview.evaluation.scores import inception_score, kernel_distance, mean_of, squared_mmd


def features(seed: int, num: int, width: int = 6, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("num_splits", [1, 3])
def test_the_score_is_that_of_its_definition(num_splits: int) -> None:
    logits = 3 * features(0, 20)
    scores = []
    for rows in np.array_split(logits.double().numpy(), num_splits):
        p = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
        divergences = [sum(x * math.log(x / y) for x, y in zip(each, p.mean(0), strict=True)) for each in p]
        scores.append(math.exp(sum(divergences) / len(divergences)))
    mean, deviation = inception_score(logits, num_splits)
    assert mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert deviation == pytest.approx(np.std(scores), abs=1e-12)


def test_the_score_is_the_number_of_classes_that_are_seen_surely_and_equally_often() -> None:
    sure = 1000.0 * torch.eye(4).repeat(5, 1)
    assert inception_score(sure, 5)[0] == pytest.approx(4.0)
    assert inception_score(sure[:1].repeat(20, 1), 5)[0] == pytest.approx(1.0)  # always the same
    assert inception_score(torch.zeros(20, 4), 5)[0] == pytest.approx(1.0)  # never sure
    with pytest.raises(CogViewError, match=r"10 parts .* 9"):
        inception_score(sure[:9])


def test_the_discrepancy_is_the_mean_over_pairs_of_different_pictures() -> None:
    first, second = features(0, 5), features(1, 7, shift=0.5)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x.double() @ y.double()) / 6 + 1) ** 3

    def within(rows: torch.Tensor) -> float:
        pairs = [kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    between = sum(kernel(x, y) for x in first for y in second) / 35
    assert squared_mmd(first, second) == pytest.approx(within(first) + within(second) - 2 * between, rel=1e-9)


@pytest.mark.slow
def test_the_interval_holds_the_true_distance_19_times_in_20() -> None:
    # Of sets from one distribution the true distance is 0, whatever the number of pictures.
    num_held, values = 0, []
    for trial in range(200):
        found = kernel_distance(features(2 * trial, 60), features(2 * trial + 1, 60), seed=trial)
        num_held += found.low <= 0 <= found.high
        values.append(found.value)
    assert 180 <= num_held <= 199  # 190 are expected, give or take 3.1
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    far = kernel_distance(features(0, 60), features(1, 60, shift=1.0))
    assert far.low > 0
    with pytest.raises(CogViewError, match=r"20 pictures .* 19"):
        kernel_distance(features(0, 19), features(1, 60))


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    found = mean_of(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (found.value, found.high - found.value) == pytest.approx((2.5, 1.96 * (5 / 3 / 4) ** 0.5))


def test_the_formulas_agree_with_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feed both the same features: the network is not at issue here."""
    pytest.importorskip("torch_fidelity", reason="torch-fidelity (and torchvision) are not installed")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    first, second = features(0, 400, 32), 1.3 * features(1, 300, 32, shift=0.2)
    statistics = [fid_features_to_statistics(each) for each in (first, second)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert Gaussian.of(first).distance(Gaussian.of(second)) == pytest.approx(theirs, rel=1e-5)
    score = isc_features_to_metric(3 * first, splits=10, shuffle=False)
    assert inception_score(3 * first) == pytest.approx(tuple(score.values()), rel=1e-6)
    same = kid_features_to_metric(
        first[:300].double(), second.double(), kid_subsets=1, kid_subset_size=300, verbose=False
    )
    assert squared_mmd(first[:300], second) == pytest.approx(same["kernel_inception_distance_mean"], rel=1e-6)


def test_inception_is_torch_fidelitys_network(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random instance of it, saved, read and compared on the same pictures: distances agree to 1e-3."""
    fidelity = pytest.importorskip(
        "torch_fidelity", reason="torch-fidelity (and torchvision) are not installed"
    )
    from cogview.evaluation.inception import load_inception

    monkeypatch.setattr(
        fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda network, weights: None
    )
    torch.manual_seed(0)
    torch.save({}, tmp_path / "none.pth")
    features_of = ["2048", "logits_unbiased"]
    theirs = fidelity.FeatureExtractorInceptionV3("random", features_of, str(tmp_path / "none.pth"))
    monkeypatch.undo()
    torch.save(theirs.state_dict(), tmp_path / "random.pth")
    ours = load_inception(tmp_path / "random.pth")
    pixels = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8)
    with torch.no_grad():
        wanted, logits = theirs(pixels)
        seen = ours(pixels.float() / 127.5 - 1.0)
    torch.testing.assert_close(seen.pooled, wanted)
    torch.testing.assert_close(seen.logits, logits)
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(each) for each in (wanted[:2, :4], wanted[2:, :4])]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    found = Gaussian.of(seen.pooled[:2, :4]).distance(Gaussian.of(seen.pooled[2:, :4]))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x' from 'torchvision'"),
        RuntimeError("operator torchvision::nms does not exist\nmore"),
        AttributeError("module 'torchvision' has no attribute 'extension'"),
    ],
)
def test_a_torchvision_for_another_torch_is_one_line_with_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from cogview.evaluation.inception import load_inception

    class Refusing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torch_fidelity":
                raise error

    monkeypatch.delitem(sys.modules, "torch_fidelity", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    with pytest.raises(
        UsageError, match=r"torchvision made for torch 2\.\d+\.\d+ .*pip install torch==2"
    ) as caught:
        load_inception(tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


class FakeExtractor(torch.nn.Module):
    """Stands for torch-fidelity's network: one weight, features that show which pixels it got."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert pixels.dtype == torch.uint8
        flat = pixels.float().flatten(1) * self.scale.detach()
        return flat, -flat


def test_weights_of_inception_are_read_safely(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cogview.errors import UsageError
    from cogview.evaluation.backbone import Backbone
    from cogview.evaluation.inception import load_inception

    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UsageError, match=r"pip install .*torchvision torch-fidelity"):
        load_inception(tmp_path / "any.pth")
    module = ModuleType("torch_fidelity")
    module.FeatureExtractorInceptionV3 = FakeExtractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    torch.save({"scale": torch.ones(1)}, tmp_path / "good.pth")
    pixels = torch.arange(0, 240, 20, dtype=torch.uint8).view(1, 3, 2, 2)
    network = load_inception(tmp_path / "good.pth")
    assert isinstance(network, Backbone)
    seen = network(pixels.float() / 127.5 - 1.0)
    assert seen.pooled.flatten().tolist() == pixels.flatten().tolist()  # no 8-bit pixel is lost
    assert seen.logits is not None
    torch.save({"scale": torch.ones(1), "more": object()}, tmp_path / "pickled.pth")
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    for name in ("pickled.pth", "other.pth"):
        with pytest.raises(CogViewError, match="Inception"):
            load_inception(tmp_path / name)
    with pytest.raises(CogViewError, match="no such file"):
        load_inception(tmp_path / "absent.pth")
