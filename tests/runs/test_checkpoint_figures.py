"""What a report finds out of a checkpoint by itself."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cogview.evaluation.caption_set import CaptionSet
from cogview.runs import checkpoint_figures
from cogview.runs.model_options import ModelOptions
from tiny import tiny_pipeline_folder


def test_the_tokenizer_is_measured_anew_where_a_picture_has_other_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_figures, "find_weights", lambda: None)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, color in enumerate(("red", "green")):
        Image.new("RGB", (16, 16), color).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a colour")
    checkpoint = checkpoint_figures.Checkpoint(
        ModelOptions(model=str(tiny_pipeline_folder(tmp_path)), device="cpu")
    )

    def measured(given: Path | None) -> dict[str, Any] | None:
        real = CaptionSet(given) if given else None
        return checkpoint_figures.measure_tokenizer(checkpoint, real, tmp_path / "kept", 2, 0)[0]

    first = measured(pictures)
    assert measured(pictures) == measured(None) == first
    Image.new("RGB", (16, 16), "blue").save(pictures / "1.png")
    second = measured(pictures)
    assert first is not None
    assert second is not None
    assert second["figures"] != first["figures"]
    assert measured(None) == second
