"""CLIP by way of open_clip, with a stand-in for it: what is asked, and what is wrong in one line."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.clip import FitScorer, load_clip


class FakeModel(torch.nn.Module):
    """Pictures by their colour, texts by what the tokens say."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels * self.scale

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("open_clip")
    colours = {"red": [1.0, 0.0, 0.0], "white": [1.0, 1.0, 1.0]}
    module.__dict__.update(
        vars(
            SimpleNamespace(
                list_models=lambda: ["ViT-B-32"],
                create_model_and_transforms=lambda name, pretrained: (FakeModel(), None, mean_colour),
                get_tokenizer=lambda name: lambda texts: torch.tensor([colours[text] for text in texts]),
            )
        )
    )
    monkeypatch.setitem(sys.modules, "open_clip", module)


def mean_colour(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32).mean((0, 1)))


@pytest.mark.usefixtures("open_clip")
def test_pictures_are_scored_by_the_cosine(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.scale": torch.ones(1)}}, tmp_path / "clip.pt")
    clip = load_clip("ViT-B-32", tmp_path / "clip.pt")
    assert isinstance(clip, FitScorer)
    pictures = [Image.new("RGB", (4, 4), name) for name in ("red", "blue", "white")]
    assert clip("red", pictures).tolist() == pytest.approx([1.0, 0.0, 3**-0.5])
    assert clip("white", pictures).tolist() == pytest.approx([3**-0.5, 3**-0.5, 1.0])


@pytest.mark.usefixtures("open_clip")
def test_what_is_no_clip_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(CogViewError, match="ViT-B-32"):
        load_clip("ViT-B-32", tmp_path / "other.pt")
    with pytest.raises(CogViewError, match="no such file"):
        load_clip("ViT-B-32", tmp_path / "absent.pt")
    with pytest.raises(UsageError, match=r"open_clip .*'ViT-X'"):
        load_clip("ViT-X", tmp_path / "other.pt")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"pip install torch==\S+ torchvision open_clip_torch"):
        load_clip("ViT-B-32", tmp_path / "other.pt")
