import errno
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.data.ranks import Ranks
from cogview.training.metrics import MetricMeans, MetricsLog, read_metrics
from cogview.training.plot import plot_losses
from cogview.training.processes import Processes
from cogview.training.task import Mean

CPU = torch.device("cpu")
ALONE = Processes(device=CPU)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


class Rank(Processes):
    """A process among others that are asked by being here: what each gives lies in `given`."""

    def __init__(
        self, rank: int, num_ranks: int, tensor_parallel: int, given: list[Any] | None = None
    ) -> None:
        self.__dict__.update(
            device=CPU, ranks=Ranks(rank=rank, num_ranks=num_ranks), given=given, shared=tensor_parallel
        )
        self.__dict__["mesh"] = None if given is None else object()

    @property
    def tensor_parallel(self) -> int:
        return self.shared

    def gather(self, value: Any) -> list[Any]:
        return self.given


def state_of_all(means: list[MetricMeans], tensor_parallel: int) -> dict[str, list[float]]:
    """Return the state that all processes agree on."""
    given = [each.state(ALONE) for each in means]
    states = [each.state(Rank(rank, len(means), tensor_parallel, given)) for rank, each in enumerate(means)]
    assert all(state == states[0] for state in states)
    return states[0]


def test_a_mean_has_its_own_weight_and_none_of_nothing() -> None:
    means = MetricMeans()
    means.add({"loss": Mean(scalar(1.0), 1), "rare": Mean(scalar(0.0), scalar(0.0))})
    means.add({"loss": Mean(scalar(15.0), 3), "text": Mean(scalar(2.0), scalar(4.0))})
    means.add_common({"norm": scalar(7.0)}, ALONE)
    read = means.read(ALONE)
    assert math.isnan(read.pop("rare"))
    assert read == {"loss": 4.0, "text": 0.5, "norm": 7.0}
    assert means.read(ALONE) == {}


@settings(deadline=None)
@given(data=st.data())
def test_means_do_not_depend_on_how_the_work_is_cut(data: st.DataObject) -> None:
    # Each row has totals and weights of its own; some have no text at all. They are dealt to processes and
    # micro-batches in any way, and in the middle other processes go on.
    numbers = st.integers(0, 50)
    rows = data.draw(st.lists(st.tuples(numbers, numbers, st.integers(1, 9)), min_size=1, max_size=12))
    num_before = data.draw(st.integers(0, len(rows)))
    norms = data.draw(st.lists(st.integers(0, 9), min_size=2, max_size=2))
    state: dict[str, list[float]] = {}
    for some, norm in zip((rows[:num_before], rows[num_before:]), norms, strict=True):
        num_parts, tensor_parallel = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
        ranks = [
            Rank(rank, num_parts * tensor_parallel, tensor_parallel, [])
            for rank in range(num_parts * tensor_parallel)
        ]
        means = [MetricMeans() for _ in ranks]
        for each, rank in zip(means, ranks, strict=True):
            each.load_state(json.loads(json.dumps(state)), CPU, rank)
        for text, pieces, codes in some:
            part = data.draw(st.integers(0, num_parts - 1))
            for each, rank in zip(means, ranks, strict=True):
                if rank.row_part == part:
                    each.add({"image": Mean(scalar(2.0 * codes), codes)})
                    if pieces:
                        each.add({"text": Mean(scalar(float(text)), scalar(float(pieces)))})
        for each, rank in zip(means, ranks, strict=True):
            each.add_common({"norm": scalar(float(norm))}, rank)
        state = state_of_all(means, tensor_parallel)
    last = MetricMeans()
    last.load_state(state, CPU, ALONE)
    expected = {"image": 2.0, "norm": sum(norms) / 2}
    if any(pieces for _, pieces, _ in rows):
        expected["text"] = sum(text for text, pieces, _ in rows if pieces) / sum(
            pieces for _, pieces, _ in rows
        )
    assert last.read(ALONE) == expected


def test_the_state_of_means_survives_json_bit_for_bit() -> None:
    one, other = MetricMeans(), MetricMeans()
    for value in (0.1, 1 / 3, 1e-7):
        one.add({"loss": Mean(scalar(value), 1 / 3)})
    other.load_state(json.loads(json.dumps(one.state(ALONE))), CPU, ALONE)
    for means in (one, other):
        means.add({"loss": Mean(scalar(0.7), 1 / 3)})
    assert one.read(ALONE) == other.read(ALONE)


def test_the_largest_value_is_of_the_first_rows_and_nan_is_the_largest() -> None:
    given = [{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": 2.0}, {"a": 9.0, "b": 1.0}, {"a": 9.0, "b": 1.0}]
    for rank in range(4):
        largest = Rank(rank, 4, 2, given).largest(given[rank])
        assert largest["a"] == 3.0
        assert math.isnan(largest["b"])


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


def test_what_is_no_line_of_metrics_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n[1]\n{}\n{"step": "x"}\nwords\n{"step": 2, "note": "mine"}\n')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}, {"step": 2}]


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
