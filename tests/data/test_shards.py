"""Shards give back what was written, tokenizing leaves out only what is broken, and damage is never read."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import (
    SIZE_PIXELS,
    MeanTokenizer,
    digest_of,
    picture,
    png,
    small_text_tokenizer,
    write_image_folder,
    write_tar,
    write_tokens,
)
from PIL import Image

from cogview.data.loader import TokenBatches
from cogview.data.shards import TokenShards
from cogview.data.tokenization import TokenizeReport, tokenize_folder
from cogview.errors import CogViewError, UsageError
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.tokenizer import TextTokenizer

TEXTS = [["一只猫", "a cat"], ["two dogs"], ["一个苹果", "red", "a 😀"], ["a"], ["b c"]]


@pytest.fixture(scope="module")
def text_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return small_text_tokenizer(tmp_path_factory.mktemp("text"))


def tokenize(source: Path, out: Path, text_tokenizer: TextTokenizer, **options: int) -> TokenizeReport:
    report = tokenize_folder(source, out, MeanTokenizer(), text_tokenizer, size_pixels=SIZE_PIXELS, **options)
    assert report is not None
    return report


def codes_of(number: int) -> list[int]:
    """Return the codes of a picture, worked out apart."""
    pixels = np.asarray(picture(number), dtype=np.float32) / 127.5 - 1
    means = pixels.mean(2).reshape(4, 4, 4, 4).mean((1, 3))
    return np.round((means + 1) / 2 * 15).astype(int).reshape(-1).tolist()


@pytest.fixture
def shards_folder(tmp_path: Path, text_tokenizer: TextTokenizer) -> Path:
    source = write_image_folder(tmp_path / "data", TEXTS)
    tokenize(source, tmp_path / "tokens", text_tokenizer, pairs_per_shard=2)
    return tmp_path / "tokens"


def test_shards_give_back_codes_and_pieces(shards_folder: Path, text_tokenizer: TextTokenizer) -> None:
    shards = TokenShards(shards_folder)
    assert len(shards) == len(TEXTS)
    assert (shards.grid, shards.num_codes, shards.num_pieces) == ((4, 4), 16, text_tokenizer.num_pieces)
    for number, texts in enumerate(TEXTS):
        assert shards.codes(number).tolist() == codes_of(number)
        assert shards.num_captions(number) == len(texts)
        for caption, text in enumerate(texts):
            assert text_tokenizer.decode(shards.pieces(number, caption).tolist()) == text
    lengths = [len(text_tokenizer.encode(text)) for texts in TEXTS for text in texts]
    assert shards.caption_lengths().tolist() == lengths
    every = {piece for texts in TEXTS for text in texts for piece in text_tokenizer.encode(text)}
    assert shards.used_pieces().tolist() == sorted(every)


def test_a_picture_that_is_not_there_is_refused(shards_folder: Path) -> None:
    for index in (-1, 5):
        with pytest.raises(IndexError, match=f"no picture {index} among 5"):
            TokenShards(shards_folder).codes(index)


def shards_in(folder: Path) -> dict[str, str]:
    """Return the hash of each shard."""
    return {name: digest for name, digest in digest_of(folder).items() if name.startswith("tokens-")}


def test_the_manifest_says_what_is_in_the_files(shards_folder: Path, text_tokenizer: TextTokenizer) -> None:
    manifest = json.loads((shards_folder / "manifest.json").read_text())
    digests = shards_in(shards_folder)
    assert {shard["file"]: shard["sha256"] for shard in manifest["shards"]} == digests
    assert [shard["num_pairs"] for shard in manifest["shards"]] == [2, 2, 1]
    assert (manifest["format"], manifest["version"], manifest["num_pairs"]) == ("cogview-tokens", 1, 5)
    assert manifest["image_tokenizer"] == MeanTokenizer.fingerprint
    assert manifest["text_tokenizer"] == text_tokenizer.fingerprint
    assert manifest["report"]["num_captions"] == 8


def test_the_files_are_as_open_to_others_as_any(shards_folder: Path) -> None:
    ordinary = shards_folder / "ordinary"
    ordinary.touch()
    assert {path.stat().st_mode for path in shards_folder.iterdir()} == {ordinary.stat().st_mode}


@pytest.mark.slow
def test_the_shards_are_the_same_with_workers_and_in_other_batches(
    tmp_path: Path, shards_folder: Path, text_tokenizer: TextTokenizer
) -> None:
    other, third = tmp_path / "other", tmp_path / "third"
    tokenize(tmp_path / "data", other, text_tokenizer, pairs_per_shard=2, num_workers=1)
    assert digest_of(other) == digest_of(shards_folder)
    tokenize(tmp_path / "data", third, text_tokenizer, pairs_per_shard=2, batch_size=3)
    assert shards_in(third) == shards_in(shards_folder)


def test_pictures_of_any_size_and_kind_become_squares(tmp_path: Path, text_tokenizer: TextTokenizer) -> None:
    wide = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    wide.paste((255, 0, 0, 255), (0, 0, 16, 32))  # cropped away: what is left is transparent, laid on white
    wide.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a")
    tokenize(tmp_path, tmp_path / "tokens", text_tokenizer)
    assert TokenShards(tmp_path / "tokens").codes(0).tolist() == [15] * 16


def test_what_is_broken_is_left_out_counted_and_listed(tmp_path: Path, text_tokenizer: TextTokenizer) -> None:
    members = {
        "0.png": png(0),
        "0.txt": b"a cat",
        "1.png": b"no picture",
        "1.txt": b"x",
        "2.png": png(2, 64)[:-100],
        "2.txt": b"x",
        "3.png": png(3),
        "3.json": json.dumps({"texts": ["", "two dogs", "one two three four five six"]}).encode(),
        "4.png": png(4),
        "4.json": json.dumps({"texts": [" ", ""]}).encode(),
        "5.png": png(5),
    }
    source = write_tar(tmp_path / "a.tar", members)
    with pytest.warns(UserWarning, match="left out") as warned:
        report = tokenize(source, tmp_path / "tokens", text_tokenizer, max_text_pieces=6)
    assert [str(warning.message) for warning in warned] == [
        f"{source}: pictures left out: 4; empty captions left out: 3; "
        "captions of more than 6 pieces, to be clipped: 1"
    ]
    shards = TokenShards(tmp_path / "tokens")
    assert [shards.codes(index).tolist() for index in range(len(shards))] == [codes_of(0), codes_of(3)]
    assert {group.kind: [problem.where for problem in group.first] for group in report.problems} == {
        "no caption": ["a.tar 4.png", "a.tar 5.png"],
        "no picture": ["a.tar 1.png"],
        "truncated": ["a.tar 2.png"],
    }
    assert (report.num_pairs, report.num_captions, report.num_problems) == (2, 3, 4)
    assert shards.report == json.loads(json.dumps(report.to_json()))
    assert "a.tar 4.png: has no caption that isn't empty" in report.to_text()


def test_nothing_usable_is_refused_and_nothing_written(tmp_path: Path, text_tokenizer: TextTokenizer) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.jsonl").write_text('{"file_name": "none.png", "text": "a"}')
    with pytest.raises(CogViewError, match=r"no pictures .*none\.png:"):
        tokenize(tmp_path / "data", tmp_path / "tokens", text_tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_failing_tokenizer_leaves_nothing_behind(tmp_path: Path, text_tokenizer: TextTokenizer) -> None:
    class Failing(MeanTokenizer):
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            raise MemoryError

    source = write_image_folder(tmp_path / "data", TEXTS)
    with pytest.raises(MemoryError):
        tokenize_folder(source, tmp_path / "tokens", Failing(), text_tokenizer, size_pixels=SIZE_PIXELS)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_holds_something_is_not_overwritten(
    tmp_path: Path, shards_folder: Path, text_tokenizer: TextTokenizer
) -> None:
    before = digest_of(shards_folder)
    with pytest.raises(UsageError, match="already exists"):
        tokenize(tmp_path / "data", shards_folder, text_tokenizer)
    assert digest_of(shards_folder) == before


def test_other_tokenizers_are_refused_by_name(shards_folder: Path, text_tokenizer: TextTokenizer) -> None:
    TokenShards(
        shards_folder, image_tokenizer=MeanTokenizer.fingerprint, text_tokenizer=text_tokenizer.fingerprint
    )
    with pytest.raises(CogViewError, match=r"image tokenizer \(0011.*\(ffff\)"):
        TokenShards(shards_folder, image_tokenizer="ffff")
    with pytest.raises(CogViewError, match="text tokenizer"):
        TokenShards(shards_folder, text_tokenizer="ffff")


def test_an_unfinished_folder_is_refused(tmp_path: Path, shards_folder: Path) -> None:
    (shards_folder / "manifest.json").unlink()
    for folder in (shards_folder, tmp_path / "none"):
        with pytest.raises(CogViewError, match=r"no manifest\.json"):
            TokenShards(folder)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_a_damaged_shard_is_refused(shards_folder: Path, damage: str, verify: bool) -> None:
    path = shards_folder / "tokens-00001.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10] if damage == "cut" else b"")
    with pytest.raises(CogViewError, match=r"tokens-00001\.safetensors is (damaged|missing|no token shard)"):
        TokenShards(shards_folder, verify=verify)


def test_a_single_changed_bit_is_found(shards_folder: Path) -> None:
    path = shards_folder / "tokens-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CogViewError, match="is damaged"):
        TokenShards(shards_folder)


def test_shards_that_were_exchanged_are_refused_even_unverified(shards_folder: Path) -> None:
    (shards_folder / "tokens-00000.safetensors").replace(shards_folder / "tokens-00002.safetensors")
    (shards_folder / "tokens-00000.safetensors").write_bytes(
        (shards_folder / "tokens-00001.safetensors").read_bytes()
    )
    with pytest.raises(CogViewError, match="holds other pictures"):
        TokenShards(shards_folder, verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "cogview"}, "'cogview'"),
        ({"version": 2}, "version 2, wanted 1"),
        ({"grid": [4]}, "is damaged"),
        ({"grid": "four"}, "is damaged"),
        ({"num_codes": None}, "is damaged"),
        ({"num_codes": 0}, "is damaged"),
        ({"num_codes": True}, "is damaged"),
        ({"num_codes": 2**16 + 1}, "is damaged"),
        ({"num_pieces": 2**62}, "is damaged"),
        ({"shards": []}, "is damaged"),
        ({"shards": [{"file": "../x", "num_pairs": 1, "sha256": ""}]}, "out of the folder"),
        ({"report": None}, "is damaged"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    shards_folder: Path, change: dict[str, object], message: str
) -> None:
    path = shards_folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CogViewError, match=message):
        TokenShards(shards_folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3"])
def test_a_manifest_that_is_none_is_refused(shards_folder: Path, content: str) -> None:
    (shards_folder / "manifest.json").write_text(content)
    with pytest.raises(CogViewError, match=r"manifest\.json is damaged"):
        TokenShards(shards_folder)


def test_a_codebook_too_large_for_16_bits_is_refused(tmp_path: Path, text_tokenizer: TextTokenizer) -> None:
    class Large(MeanTokenizer):
        num_codes = 70_000

    source = write_image_folder(tmp_path / "data", TEXTS)
    with pytest.raises(UsageError, match="70,000 is too large"):
        tokenize_folder(source, tmp_path / "tokens", Large(), text_tokenizer, size_pixels=SIZE_PIXELS)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=4))
@pytest.mark.slow
def test_captions_without_pieces_are_read_as_such_wherever_they_stand(lengths: list[list[int]]) -> None:
    captions = [[list(range(length)) for length in texts] for texts in lengths]
    with tempfile.TemporaryDirectory() as folder:
        shards = TokenShards(write_tokens(Path(folder), [(np.arange(4), texts) for texts in captions]))
        read = [
            [shards.pieces(index, number).tolist() for number in range(shards.num_captions(index))]
            for index in range(len(shards))
        ]
        assert read == captions
        assert shards.caption_lengths().tolist() == [length for texts in lengths for length in texts]
        assert shards.used_pieces().tolist() == list(range(max(map(max, lengths))))
        template = TextToImageTemplate(
            vocabulary=Vocabulary(num_image_codes=65_536, num_text_pieces=50_000),
            grid_rows=2,
            grid_columns=2,
            max_text_pieces=2,
        )
        batch = TokenBatches(shards, template, 0, len(captions)).batch(0)
        assert (batch.text_mask.sum(1) > 0).all(), "the end of an empty text is learnt"


def test_the_largest_code_survives(tmp_path: Path) -> None:
    shards = TokenShards(write_tokens(tmp_path, [(np.array([0, 1, 2, 65_535]), [[49_999]])]))
    assert shards.codes(0).tolist() == [0, 1, 2, 65_535]
    assert shards.pieces(0, 0).tolist() == [49_999]
