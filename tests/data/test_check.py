"""The report counts what a data set holds, and lists what is wrong with it."""

import json
from pathlib import Path

import pytest
from picture_folders import MeanTokenizer, png, small_text_tokenizer, write_image_folder, write_tar

from cogview.data.check import Spread, check_folder, main_script
from cogview.data.shards import TokenShards
from cogview.data.tokenization import tokenize_folder
from cogview.errors import CogViewError


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """Return a folder of seven entries, four of them good pictures."""
    folder = write_image_folder(
        tmp_path / "flawed", [["一只猫", "a cat on a red background", " "], ["", " "]]
    )
    (folder / "wide.png").write_bytes(png(7, 32))
    (folder / "again.png").write_bytes(png(0))
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes(png(3, 64)[:-200])
    names = ("wide", "again", "text", "cut", "missing")
    lines = [json.dumps({"file_name": f"{name}.png", "text": "dog", "split": "train"}) for name in names]
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("\n".join([*lines, "{"]))
    return folder


def test_a_flawed_folder_is_counted_and_each_flaw_told(flawed: Path) -> None:
    report = check_folder(
        flawed, size_pixels=32, text_tokenizer=small_text_tokenizer(flawed.parent), max_text_pieces=5
    )
    assert (report.num_images, report.num_captions, report.num_problems) == (4, 4, 4)
    assert (report.num_empty_captions, report.num_without_caption) == (3, 1)
    assert report.sizes == {"16x16": 3, "32x32": 1}
    assert report.num_enlarged == 3
    assert report.short_side_pixels == Spread(least=16, median=16, most=32, mean=20.0)
    assert report.caption_characters == Spread(least=3, median=3, most=25, mean=8.5)
    assert report.num_long_captions == 1
    assert report.scripts == {"Latin": 0.75, "Chinese": 0.25}
    assert report.splits == {"": 2, "train": 2}
    assert report.duplicates == (("images/0.png", "again.png"),)
    told = [str(problem) for problem in report.problems]
    assert told[0].startswith("text.png: not a picture")
    assert told[1].startswith("cut.png: not a picture")
    assert told[2] == "missing.png: cannot be read (No such file or directory)"
    assert told[3].startswith("metadata.jsonl line 8: not JSON")


def test_the_report_is_the_same_when_repeated(flawed: Path) -> None:
    assert check_folder(flawed) == check_folder(flawed)


def test_the_report_is_json_and_text_with_every_figure(flawed: Path) -> None:
    report = check_folder(flawed)
    stored = json.loads(json.dumps(report.to_json()))
    assert stored["num_images"] == 4
    assert stored["problems"][2] == {
        "where": "missing.png",
        "kind": "missing",
        "reason": "cannot be read (No such file or directory)",
    }
    text = report.to_text()
    for said in (
        "4 pictures, 4 captions",
        "16x16 3, 32x32 1",
        "Latin 75%",
        "again.png = images/0.png",
        "4 problems:",
    ):
        assert said in text
    assert "pieces" not in text


def test_a_long_list_of_problems_is_cut_and_its_rest_counted(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "data", [["a"]])
    with (folder / "metadata.jsonl").open("a") as file:
        file.writelines("{\n" for _ in range(130))
    report = check_folder(folder)
    assert report.num_problems == 130
    assert len(report.problems) == 100
    assert report.to_text().endswith("and 30 more")


def test_a_folder_all_of_whose_pictures_are_broken_gives_a_report(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "none.png", "text": "a"}')
    report = check_folder(tmp_path)
    assert (report.num_images, report.num_problems) == (0, 1)
    assert report.short_side_pixels is None
    assert report.to_text().splitlines() == [
        f"{tmp_path}: 0 pictures, 0 captions",
        "1 problems:",
        "  none.png: cannot be read (No such file or directory)",
    ]


def test_tars_are_checked_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.png": png(0), "0.txt": "猫".encode(), "1.png": b"", "1.txt": b"x"})
    report = check_folder(tmp_path)
    assert (report.num_images, report.num_problems) == (1, 1)
    assert report.problems[0].where == "a.tar 1.png"


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_captions_count_as_empty_where_tokenizing_leaves_nothing(
    tmp_path: Path, with_tokenizer: bool
) -> None:
    texts = ["\u200b", "\u200e\u200f", " \u3000\t", "", "a\u200bcat", "\ufeff two dogs"]
    folder = write_image_folder(tmp_path / "data", [[text] for text in texts] + [["a cat", "\u200b"]])
    tokenizer = small_text_tokenizer(tmp_path)
    report = check_folder(folder, text_tokenizer=tokenizer if with_tokenizer else None)
    with pytest.warns(UserWarning, match="left out"):
        made = tokenize_folder(folder, tmp_path / "tokens", MeanTokenizer(), tokenizer, size_pixels=16)
    assert made is not None
    assert (report.num_empty_captions, report.num_without_caption) == (5, 4)
    assert report.num_images - report.num_without_caption == made.num_pairs == 3
    assert report.num_captions == made.num_captions == 3


def test_what_is_passed_over_is_a_problem_of_check_and_of_tokens_and_no_pair_of_a_shard(
    tmp_path: Path,
) -> None:
    folder = write_image_folder(tmp_path / "data", [["a cat"]] * 6)
    before = _tokens_of(folder, tmp_path / "before")
    for number in range(3):
        (folder / "images" / f"x{number}.png").write_bytes(png(number))
    report = check_folder(folder)
    assert (report.num_images, report.num_problems) == (6, 3)
    with pytest.warns(UserWarning, match="files passed over: 3"):
        after = _tokens_of(folder, tmp_path / "after")
    assert after.fingerprint == before.fingerprint
    assert after.report["num_problems"] == 3
    listed = [json.loads(line) for line in (tmp_path / "after" / "problems.jsonl").read_text().splitlines()]
    assert [(line["where"], line["kind"]) for line in listed] == [
        (f"images/x{number}.png", "passed over") for number in range(3)
    ]


def _tokens_of(folder: Path, out: Path) -> TokenShards:
    tokenizer = small_text_tokenizer(folder.parent)
    tokenize_folder(folder, out, MeanTokenizer(), tokenizer, size_pixels=16, batch_size=2, pairs_per_shard=3)
    return TokenShards(out)


def test_progress_reaches_the_end(flawed: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_folder(flawed, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CogViewError, match="holds no pictures with captions"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("两只小猫 cat", "Chinese"),
        ("cat, dog", "Latin"),
        ("кот", "Cyrillic"),
        ("قط", "Arabic"),
        ("123 !", "none"),
        ("ねこ", "Hiragana"),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert main_script(text) == script


def test_the_spread_of_nothing_is_nothing() -> None:
    assert Spread.of([]) is None
    assert Spread.of([3, 1, 2, 10]) == Spread(least=1, median=2, most=10, mean=4.0)
