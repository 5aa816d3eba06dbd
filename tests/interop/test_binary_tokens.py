"""Token sets of the release become token shards with the same codes and pieces, and come back byte for byte."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cogview.cli.main import main
from cogview.data.shards import TokenShards
from cogview.interop.binary_tokens import convert_binary_tokens, is_binary_tokens, write_binary_tokens
from cogview.text.tokenizer import TextTokenizer
from released import text_model_of_50_000_pieces
from tiny import tiny_image_tokenizer, tiny_text_tokenizer

LENGTHS = (5, 64, 0, 1, 33)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    text_model_of_50_000_pieces(folder / "text.model")
    tiny_image_tokenizer(num_codes=8192).save_pretrained(folder / "pictures")
    return folder


def rows() -> np.ndarray:
    generator = np.random.default_rng(0)
    text = generator.integers(8192, 58_192, (len(LENGTHS), 64))
    text[np.arange(64) >= np.array(LENGTHS)[:, None]] = -1
    codes = generator.integers(0, 8192, (len(LENGTHS), 1024))
    return np.concatenate([text, codes], axis=1).astype("<i4")


def flags(tokenizers: Path) -> list[str]:
    return [
        *("--text-tokenizer", str(tokenizers / "text.model")),
        *("--image-tokenizer", str(tokenizers / "pictures")),
    ]


def test_codes_and_pieces_are_those_of_the_file_and_it_comes_back(tmp_path: Path, tokenizers: Path) -> None:
    source, tokens, back = tmp_path / "set.bin", tmp_path / "tokens", tmp_path / "back.bin"
    source.write_bytes(rows().tobytes())
    assert main(["convert", str(source), str(tokens), *flags(tokenizers)]) == 0
    text = TextTokenizer.from_file(tokens / "text.model")
    shards = TokenShards(tokens, text_tokenizer=text.fingerprint)
    assert (len(shards), shards.grid, shards.num_codes, shards.num_pieces) == (5, (32, 32), 8192, 50_000)
    for index, (row, length) in enumerate(zip(rows(), LENGTHS, strict=True)):
        assert shards.num_captions(index) == 1
        assert np.array_equal(shards.pieces(index, 0), row[:length] - 8192)
        assert np.array_equal(shards.codes(index), row[64:])
    assert (tokens / "image_tokenizer" / "config.json").is_file()
    assert main(["convert", str(tokens), str(back), "--to", "released"]) == 0
    assert back.read_bytes() == source.read_bytes()


def test_many_rows_make_many_shards(tmp_path: Path, tokenizers: Path) -> None:
    (tmp_path / "set.bin").write_bytes(rows().tobytes())
    text = TextTokenizer.from_file(tokenizers / "text.model")
    pictures = tiny_image_tokenizer(num_codes=8192)
    convert_binary_tokens(tmp_path / "set.bin", tmp_path / "tokens", pictures, text, pairs_per_shard=2)
    assert len(list((tmp_path / "tokens").glob("tokens-*.safetensors"))) == 3
    assert write_binary_tokens(tmp_path / "tokens", tmp_path / "back.bin") == (5, 0)
    assert (tmp_path / "back.bin").read_bytes() == (tmp_path / "set.bin").read_bytes()


def test_texts_that_are_too_long_lose_their_end_and_are_counted(
    tmp_path: Path, tokenizers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set.bin").write_bytes(rows().tobytes())
    assert main(["convert", str(tmp_path / "set.bin"), str(tmp_path / "tokens"), *flags(tokenizers)]) == 0
    pieces = TokenShards.pieces
    monkeypatch.setattr(TokenShards, "pieces", lambda *place: np.tile(pieces(*place), 2))
    assert write_binary_tokens(tmp_path / "tokens", tmp_path / "back.bin") == (5, 2)
    found = np.fromfile(tmp_path / "back.bin", dtype="<i4").reshape(5, -1)
    assert np.array_equal(found[4, :64], np.tile(rows()[4, :33], 2)[:64])
    assert np.array_equal(found[0, :11], [*rows()[0, :5], *rows()[0, :5], -1])


def spoilt(row: int, column: int, value: int) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        content = rows()
        content[row, column] = value
        path.write_bytes(content.tobytes())

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(rows().tobytes()[:-4]), "cut off in row 5"),
        (spoilt(3, 0, 8191), "row 4 .*text tokens"),
        (spoilt(2, 63, 58_192), "row 3 .*text tokens"),
        (spoilt(2, 63, 9000), "row 3 .*padding"),
        (spoilt(1, 64, 8192), "row 2 .*codes .*8,192"),
        (spoilt(1, 1087, -1), "row 2 .*codes .*8,192"),
        # Not even the first row is one: then it is taken for a checkpoint.
        (spoilt(0, 0, 3), "no file of PyTorch"),
        (lambda path: path.write_bytes(rows().tobytes()[:4000]), "no file of PyTorch"),
    ],
)
@pytest.mark.slow
def test_a_damaged_set_is_one_line_and_writes_nothing(
    tmp_path: Path,
    tokenizers: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    said: str,
) -> None:
    spoil(tmp_path / "set.bin")
    assert main(["convert", str(tmp_path / "set.bin"), str(tmp_path / "tokens"), *flags(tokenizers)]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert re.search(said, complaint), complaint
    assert [path.name for path in tmp_path.iterdir()] == ["set.bin"]


def test_what_cannot_be_asked_for_is_a_usage_error(
    tmp_path: Path, tokenizers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(tmp_path / "set.bin"), str(tmp_path / "tokens")
    (tmp_path / "set.bin").write_bytes(rows().tobytes())
    assert is_binary_tokens(tmp_path / "set.bin")
    text, pictures = flags(tokenizers)[:2], flags(tokenizers)[2:]
    tiny_text_tokenizer(tmp_path)
    for more, said in (
        (text, "give those that made it with --text-tokenizer and --image-tokenizer"),
        ([*text, *pictures, "--num-ranks", "2"], "--num-ranks"),
        (["--text-tokenizer", str(tmp_path / "text.model"), *pictures], "text tokenizer has"),
    ):
        assert main(["convert", source, out, *more]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "tokens").exists()
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "diary.txt").write_text("mine")
    assert main(["convert", source, out, *text, *pictures]) == 2
    assert "isn't an empty folder" in capsys.readouterr().err
    assert main(["convert", source, str(tmp_path / "made"), *text, *pictures]) == 0
    assert main(["convert", str(tmp_path / "made"), source, "--to", "released"]) == 2
    assert "set.bin exists" in capsys.readouterr().err
