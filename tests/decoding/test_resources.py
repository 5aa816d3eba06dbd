"""What drawing takes of the machine is the user's to say: how many at once, how much memory, which cache."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cogview
from cogview.decoding import scheduler
from cogview.decoding.config import Resources, bytes_of, shown_bytes
from cogview.decoding.memory import code_bytes, decoding_bytes
from cogview.decoding.pool import cache_dtype, page_bytes
from cogview.errors import UsageError
from cogview.transformer.config import TransformerConfig
from tiny import tiny_pipeline_folder

MIB = 2**20


@given(
    st.integers(1, 10**6),
    st.sampled_from([("", 1), ("KB", 10**3), ("MiB", 2**20), ("GB", 10**9), ("gib", 2**30)]),
)
def test_amounts_of_memory_are_numbers_with_units(number: int, unit: tuple[str, int]) -> None:
    name, factor = unit
    assert bytes_of(f"{number}{name}") == bytes_of(f" {number} {name} ") == number * factor
    assert abs(bytes_of(shown_bytes(bytes_of(number * MIB))) / (number * MIB) - 1) < 0.01


@pytest.mark.parametrize("size", ["", "much", "6 apples", "-1GiB", "1e9", "nan", "6GiBGiB"])
def test_other_amounts_are_refused(size: str) -> None:
    with pytest.raises(UsageError, match="like 6GiB"):
        bytes_of(size)


def test_impossible_resources_are_refused() -> None:
    for wrong in ({"max_batch": 0}, {"memory_bytes": 0}):
        with pytest.raises(UsageError):
            Resources(**wrong)


def test_the_cache_is_float32_or_float16_on_a_cpu() -> None:
    dense = TransformerConfig(num_layers=1, hidden_size=64, num_heads=1, vocabulary_size=9, num_positions=9)
    sparse = dataclasses.replace(dense, attention_pattern="three_region")
    for dtype in (torch.float32, torch.int8):
        assert cache_dtype(dense, dtype, "cpu") == torch.float32
        assert cache_dtype(dense, dtype, "cpu", "float16") == torch.float16
    for dtype in (torch.bfloat16, torch.float16):
        assert cache_dtype(dense, dtype, "cpu") == torch.float16
        assert cache_dtype(dense, dtype, "cpu", "float32") == torch.float32
        assert cache_dtype(dense, dtype, "cuda") == dtype
        assert cache_dtype(sparse, dtype, "cpu") == torch.float32
    with pytest.raises(UsageError, match="three_region"):
        cache_dtype(sparse, torch.float32, "cpu", "float16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("tiny"))


def most_at_once(pipe: cogview.Pipeline) -> int:
    """Return how many pictures the engine works on at once."""
    engine, most = pipe.model._runner.engine, 0
    step = engine._pass

    def counted(jobs: list) -> list:  # type: ignore[type-arg]
        nonlocal most
        most = max(most, len(engine._scheduler.running))
        return step(jobs)

    engine._pass = counted  # type: ignore[method-assign]
    pipe.generate_codes("a cat", 6)
    return most


@pytest.mark.slow
def test_as_many_are_drawn_at_once_as_fit_and_they_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "resident_bytes", lambda: 300 * MIB)
    unlimited = cogview.load(folder, "cpu")
    codes = unlimited.generate_codes("a cat", 6)
    assert most_at_once(unlimited) == 6
    assert most_at_once(cogview.load(folder, "cpu", max_batch=4)) == 4
    held = 300 * MIB + decoding_bytes(16) + code_bytes(torch.float32)
    page = page_bytes(unlimited.transformer.config, torch.float32)
    # What a pass takes for a while is the same for few rows, so each further picture takes one page more.
    too_little, enough = held, held + 4 * MIB
    while enough - too_little > page // 2:
        middle = (too_little + enough) // 2
        try:
            cogview.load(folder, "cpu", memory=middle).generate_codes("a cat", 1)
        except UsageError:
            too_little = middle
        else:
            enough = middle
    found = cogview.load(folder, "cpu", memory=enough).generate_codes("a cat", 6)
    assert torch.equal(found, codes)
    for more, wanted in ((0, 1), (2, 3), (9, 6)):
        assert most_at_once(cogview.load(folder, "cpu", memory=enough + more * page)) == wanted


def test_a_request_that_is_too_large_is_refused_alone_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "resident_bytes", lambda: 300 * MIB)
    pipe = cogview.load(folder, "cpu", memory="200MiB")
    with pytest.raises(UsageError, match=r"200MiB.* \d+MiB.* int8") as told:
        pipe.generate_codes("a cat")
    assert "\n" not in str(told.value)
    enough = str(told.value).partition("give ")[2].partition(",")[0]
    assert len(cogview.load(folder, "cpu", memory=enough).generate_codes("a cat", 1)) == 1


@pytest.mark.slow
def test_a_float16_cache_draws_and_holds_half(folder: Path) -> None:
    whole, half = cogview.load(folder, "cpu"), cogview.load(folder, "cpu", cache="float16")
    codes = half.generate_codes("a cat", 3)
    assert torch.equal(codes[0, 1:2], half.generate_codes("a cat", 1, seed=1)[0])
    whole.generate_codes("a cat", 3)
    pools = [pipe.model._runner.engine._scheduler.pool for pipe in (whole, half)]
    assert pools[0].page_bytes == 2 * pools[1].page_bytes
    assert pools[0].page_bytes == page_bytes(whole.transformer.config, torch.float32)


def test_a_memory_without_its_unit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"memory .*got 6; .*unit"):
        Resources(memory_bytes=bytes_of("6"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="where getrusage tells another peak")
def test_a_process_that_a_large_one_started_has_a_peak_of_its_own() -> None:
    tell = "from cogview.decoding.memory import peak_resident_bytes; print(peak_resident_bytes())"
    large = f"x = b'1' * 2**30; import subprocess, sys; subprocess.run([sys.executable, '-c', {tell!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", large], check=True, stdout=subprocess.PIPE, text=True)
    assert 2**24 < int(done.stdout) < 2**30
