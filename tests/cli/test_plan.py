"""`cogview plan`: its report, and one line for what cannot be planned."""

import json

import pytest

from cogview.cli.main import EXIT_USAGE, main


def test_a_report_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "tiny", "--device", "rtx4090", "--training.batch-size", "8"]
    assert main(words) == 0
    report = capsys.readouterr().out
    assert "8 sequences at a time" in report
    assert "if 40% of 82.6 TFLOP/s" in report  # in float32
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["training"]["bytes"] == sum(result["training"]["bytes_by_kind"].values())
    assert result["training"]["tokens"] == 20 * 8 * (3 + 16 + 16 + 1)
    assert result["generation"]["largest_batch"] > 100


def test_a_product_is_timed_where_nobody_knows_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tiny", "--json"]) == 0
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["peak_is_timed"]
    assert 0 < training["peak_tflops"] < 100
    work = training["flops_per_step"] * training["num_steps"] / 3600
    assert training["hours"] == pytest.approx(work / (training["peak_tflops"] * 1e12 * 0.4))
    assert main(["plan", "tiny", "--peak-tflops", "0.1"]) == 0
    assert "if 40% of 0.1 TFLOP/s are reached" in capsys.readouterr().out


def test_what_does_not_fit_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tiny", "--device", "h100", "--device-memory-gb", "0.0002"]) == 0
    report = capsys.readouterr().out
    assert "does not fit h100 at all: even one sequence at a time needs" in report
    assert "does not fit h100 at all: one picture needs" in report
    assert " 0.00 " not in report  # small ones are told in megabytes


@pytest.mark.parametrize(
    ("gigabytes", "flags", "advice"),
    [
        # Four parts of the batch, one sequence each, whatever the micro-batches were before.
        (
            "0.0025",
            ["--training.num-micro-batches", "4"],
            "; 4 that share the weights do, --training.num-micro-batches 1",
        ),
        ("0.0025", ["--training.shard-over", "1"], ", and more devices that share the run do not help"),
        ("0.0002", [], ", and more devices that share the run do not help"),
        (
            "0.0023",
            [],
            ", and more devices that share the run do not help",
        ),  # 8 would, but there are 4 sequences
        (
            "0.0023",
            ["--training.batch-size", "16"],
            "; 8 that share the weights do, --training.num-micro-batches 2",
        ),
    ],
)
@pytest.mark.slow
def test_more_devices_are_named_where_they_help(
    gigabytes: str, flags: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "plan",
        "tiny",
        "--device",
        "h100",
        "--device-memory-gb",
        gigabytes,
        "--num-devices",
        "1",
        *flags,
    ]
    assert main(words) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "even one sequence" in line]
    assert line.partition(" needs ")[2].partition("MB")[2].startswith(advice)


def test_the_tokens_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "tiny", "--device", "h100", "--grid", "8", "8", "--image-codes", "256", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["transformer"]["num_positions"] == 3 + 16 + 64 + 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "h1000"], "'h1000'"),
        (["--num-devices", "0"], "num-devices"),
        (["--device", "h100", "--num-devices", "3"], "num_micro_batches 1 times 3"),
        (["--mfu", "2"], "mfu"),
        (["--generate"], "--generate"),
        (["--device-memory-gb", "0"], "device-memory-gb"),
        (["--transformer.vocabulary-size", "9"], "vocabulary-size"),
        (["--transformer.three-region.num-image-tokens", "9"], "three-region.num-image-tokens follows"),
        (["--padded-texts", "--transformer.grid.num-rows", "9"], "--transformer.grid.num-rows follows"),
        (["--image-codes", "9" * 20], "at most 2,147,483,647 together"),
        (["--transformer.num-layers", "9" * 20], "num-layers must be at most 9,223,372,036,854,775,807"),
        (["--grid", "0", "4"], "grid_rows"),
        (["--kept-codes", "17"], "16 codes"),
        (
            ["--training.batch-size", "3000000"],
            "3,000,000 sequences",
        ),
    ],
)
@pytest.mark.slow
def test_impossible_requests_are_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "tiny", *flags]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
