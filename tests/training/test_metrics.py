import errno
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cogview.training.metrics import MetricMeans, MetricsLog, read_metrics
from cogview.training.plot import plot_losses


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


def test_means_are_weighted_and_each_over_its_own_values() -> None:
    means = MetricMeans()
    means.add({"loss": scalar(1.0)}, weight=0.25)
    means.add({"loss": scalar(5.0), "rare": scalar(2.0)}, weight=0.75)
    assert means.read() == {"loss": 4.0, "rare": 2.0}
    means.add({"loss": scalar(7.0)})
    assert means.read() == {"loss": 7.0}


def test_the_state_of_means_survives_json_bit_for_bit() -> None:
    one, other = MetricMeans(), MetricMeans()
    for value in (0.1, 1 / 3, 1e-7):
        one.add({"loss": scalar(value)}, weight=1 / 3)
    other.load_state(json.loads(json.dumps(one.state())), torch.device("cpu"))
    for means in (one, other):
        means.add({"loss": scalar(0.7)}, weight=1 / 3)
    assert one.read() == other.read()


@pytest.mark.usefixtures("no_tensorboard")
def test_lines_after_the_step_of_a_resume_are_cut_away(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write(step, {"loss": 1 / step})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 20, "lo')  # a kill in mid-write
    with MetricsLog(tmp_path, 12) as log:
        assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10]
        log.write(15, {"loss": 1 / 15})
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.usefixtures("no_tensorboard")
def test_values_that_are_not_finite_leave_the_file_valid_json(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"loss": math.nan, "other": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "loss": None, "other": 1.0}
    assert math.isnan(read_metrics(tmp_path / "metrics.jsonl")[0]["loss"])


@pytest.mark.usefixtures("no_tensorboard")
def test_a_line_that_found_no_room_is_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 1.0})
    real_open = Path.open

    def short_open(path: Path, *arguments: Any, **options: Any) -> Any:
        file = real_open(path, *arguments, **options)

        class Short:
            """Takes five bytes of what is written, as a disk does that then is full."""

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> int:
                return file.write(data[:5])

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Short()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", short_open)
        with pytest.raises(OSError, match="No space left") as caught:
            log.write(2, {"loss": 2.0})
    assert caught.value.errno == errno.ENOSPC
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    log.write(3, {"loss": 3.0})
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsLog(tmp_path, 0) as log:
        log.write(5, {"loss": 0.5})
        log.write(10, {"loss": 0.25})
    with MetricsLog(tmp_path, 5) as log:
        log.write(10, {"loss": 0.125})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(5, 0.5), (10, 0.125)]


@pytest.mark.usefixtures("no_tensorboard")
def test_the_plot_is_a_picture_of_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert not plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    with MetricsLog(tmp_path, 0) as log:
        for step in range(1, 4):
            log.write(
                step,
                {"loss": 1 / step, "loss_scale": 65536.0, "text_loss_nats": math.nan if step == 2 else 1.0},
            )
    assert plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_tensorboard")
def test_without_matplotlib_there_is_no_plot_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"loss": 1.0})
    assert not plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
