"""A questionnaire tells raters nothing of its systems, and what does not fit together is refused in one line."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.questionnaire.build import build_questionnaire
from cogview.evaluation.questionnaire.folder import read_key, read_questionnaire
from cogview.evaluation.questionnaire.systems import (
    Caption,
    System,
    find_pictures,
    parse_systems,
    read_captions,
)
from questionnaire_folder import CAPTIONS, COLOURS, captions, questionnaire_in, systems_in


def test_pictures_keep_their_colours_and_lose_their_origin(tmp_path: Path) -> None:
    systems = systems_in(tmp_path)
    told = PngInfo()
    told.add_text("Software", "ours 1.0")
    Image.new("RGB", (16, 16), (30, 160, 61)).save(tmp_path / "ours" / "1.png", pnginfo=told)
    build_questionnaire(tmp_path / "out", systems, captions())
    questionnaire = read_questionnaire(tmp_path / "out")
    key = read_key(questionnaire)
    assert key.systems == tuple(COLOURS)
    for number, question in enumerate(questionnaire.questions):
        assert question.caption == CAPTIONS[number]
        for picture in question.pictures:
            with Image.open(questionnaire.picture_path(picture)) as shown:
                red, green, blue = COLOURS[key.system_of[picture]]
                assert shown.getpixel((0, 0)) == (red, green, blue + number)
                assert shown.size == (32, 32)  # of the largest
                assert shown.info == {}
    for path in (tmp_path / "out").rglob("*"):
        if path.name != "key.json" and path.is_file():
            content = path.name.encode() + path.read_bytes()
            assert not any(name.encode() in content for name in COLOURS)


def test_order_is_each_raters_own_and_stays(tmp_path: Path) -> None:
    questionnaire = questionnaire_in(tmp_path, questions_per_rater=2)
    again = read_questionnaire(questionnaire.folder)
    raters = [f"rater-{number}" for number in range(300)]
    firsts: dict[str, int] = {}
    asked = [0, 0, 0]
    for rater in raters:
        numbers = questionnaire.numbers_for(rater)
        assert numbers == again.numbers_for(rater)
        assert len(set(numbers)) == 2
        for number in numbers:
            asked[number] += 1
        order = questionnaire.order_for(rater, 0)
        assert order == again.order_for(rater, 0)
        assert sorted(order) == sorted(questionnaire.questions[0].pictures)
        firsts[order[0]] = firsts.get(order[0], 0) + 1
    # Binomial(300, 1/3) leaves 60 to 140 once in 10^6, Binomial(300, 2/3) 160 to 240 likewise.
    assert len(firsts) == 3
    assert all(60 <= count <= 140 for count in firsts.values())
    assert all(160 <= count <= 240 for count in asked)


def test_two_questionnaires_of_the_same_pictures_share_no_name_and_no_order(tmp_path: Path) -> None:
    systems = systems_in(tmp_path)
    for name in ("first", "second"):
        build_questionnaire(tmp_path / name, systems, captions())
    first, second = (read_questionnaire(tmp_path / name) for name in ("first", "second"))
    assert first.identity != second.identity
    assert first.secret != second.secret
    assert not set(first.questions[0].pictures) & set(second.questions[0].pictures)


def test_pictures_are_found_by_name_metadata_or_what_they_were_drawn_for(tmp_path: Path) -> None:
    asked = [Caption(text="a cat", name="x/1"), Caption(text="a dog", name="x/2")]
    named, listed, drawn = (tmp_path / name for name in ("named", "listed", "drawn"))
    (named / "x").mkdir(parents=True)
    (named / "x" / "1.jpg").touch()
    (named / "x" / "2.png").touch()
    (named / "more.png").touch()
    assert find_pictures(System(name="s", folder=named), asked) == (
        [named / "x" / "1.jpg", named / "x" / "2.png"],
        1,
    )
    listed.mkdir()
    lines = [{"file_name": "b.png", "texts": ["a hound", "a dog"]}, {"file_name": "a.png", "text": "a  cat"}]
    (listed / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (listed / "a.png").touch()
    (listed / "b.png").touch()
    assert find_pictures(System(name="s", folder=listed), asked) == ([listed / "a.png", listed / "b.png"], 0)
    drawn.mkdir()
    for number, text in enumerate(("a dog", "a cat")):
        told = PngInfo()
        told.add_itxt("Description", text)
        Image.new("RGB", (4, 4)).save(drawn / f"{number}.png", pnginfo=told)
    Image.new("RGB", (4, 4)).save(drawn / "contact-sheet.png")
    assert find_pictures(System(name="s", folder=drawn), asked) == ([drawn / "1.png", drawn / "0.png"], 1)
    (drawn / "2.png").write_bytes((drawn / "0.png").read_bytes())
    with pytest.raises(CogViewError, match=r"'s' has 2 pictures for 'x/2' \(0.png, 2.png\)"):
        find_pictures(System(name="s", folder=drawn), asked)


def test_captions_come_from_text_or_json_lines(tmp_path: Path) -> None:
    text, lines = tmp_path / "captions.txt", tmp_path / "captions.jsonl"
    text.write_text("\ufeffa/1.png\ta cat\n\n2.5\ta  dog \na bird\n", encoding="utf-8")
    assert read_captions(text) == [
        Caption(text="a cat", name="a/1"),
        Caption(text="a dog", name="2.5"),
        Caption(text="a bird"),
    ]
    lines.write_text(
        '{"file_name": "1.png", "texts": ["一只猫", "a cat"]}\n{"text": "a dog"}\n', encoding="utf-8"
    )
    assert read_captions(lines) == [Caption(text="一只猫", name="1"), Caption(text="a dog")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "holds no captions"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.txt", b"1\ta cat\n1.png\ta dog\n", "line 2 is no caption ('1' "),
        ("a.txt", b"a cat\na cat\n", 'line 2 is no caption ("a cat" '),
        ("a.txt", b"1\t \n", "line 1 is no caption (the text is empty)"),
        ("a.txt", b" \ta cat\n", "line 1 is no caption (the name is empty)"),
        ("a.jsonl", b"{}\n", '"text"'),
        ("a.jsonl", b'{"text": 1}\n', '"text" is not'),
        ("a.jsonl", b'{"text": "a", "file_name": 1}\n', '"file_name" is not'),
        ("a.jsonl", b"{\n", "line 1 is no caption"),
        ("a.jsonl", b"[" * 100_000, "line 1 is no caption"),
    ],
)
def test_what_is_no_captions_is_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CogViewError) as error:
        read_captions(tmp_path / name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_systems_are_told_by_name_and_folder() -> None:
    assert parse_systems(["a=x/y", "x/b"]) == [
        System(name="a", folder=Path("x/y")),
        System(name="b", folder=Path("x/b")),
    ]
    for words, said in (
        (["a=x"], "two systems .* 1"),
        (["a=x", "a=y"], "two systems .*'a'"),
        (["a=x", "b="], "'b='"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_systems(words)


def test_what_does_not_fit_together_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    systems = systems_in(tmp_path)
    out = tmp_path / "out"
    for more, said in (
        ({"questions_per_rater": 4}, "questions_per_rater.* 1 to the 3 "),
        ({"size_pixels": 0}, "size_pixels"),
    ):
        with pytest.raises(UsageError, match=said):
            build_questionnaire(out, systems, captions(), **more)
    with pytest.raises(UsageError, match=r"2 to 26 systems.* 1"):
        build_questionnaire(out, systems[:1], captions())
    (tmp_path / "truth" / "2.png").write_bytes(b"no picture")
    with pytest.raises(CogViewError, match=r"2\.png: not a picture"):
        build_questionnaire(out, systems, captions())
    (tmp_path / "truth" / "2.png").unlink()
    with pytest.raises(CogViewError, match=r"'truth' .*1 of 3 captions.* '2'"):
        build_questionnaire(out, systems, captions())
    with pytest.raises(CogViewError, match="no folder"):
        build_questionnaire(out, [systems[0], System(name="b", folder=tmp_path / "b")], captions())
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UsageError, match="isn't an empty folder"):
        build_questionnaire(out, systems[:2], captions())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told.pop("questions"), "is damaged"),
        (lambda told: told.update(format=2), "format 2, wanted 1"),
        (lambda told: told["questions"][0]["pictures"].append("../../secret"), "name of a picture"),
        (lambda told: told["questions"][0].update(pictures=["0" * 32]), "without pictures"),
        (lambda told: told["questions"].append(told["questions"][0]), "in two places"),
        (lambda told: told["questions"][0]["pictures"].append("0" * 32), "lacks 1 of its 10 pictures"),
        (lambda told: told.update(questions_per_rater=0), "questions_per_rater is 0"),
    ],
)
def test_a_damaged_questionnaire_is_one_line(tmp_path: Path, change: object, said: str) -> None:
    path = questionnaire_in(tmp_path).folder / "questionnaire.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(CogViewError, match=said):
        read_questionnaire(path.parent)


def test_a_key_of_another_questionnaire_is_refused(tmp_path: Path) -> None:
    questionnaire = questionnaire_in(tmp_path)
    path = questionnaire.folder / "key.json"
    told = json.loads(path.read_text())
    first, second = questionnaire.questions[0].pictures[:2]
    told["system_of"][first] = told["system_of"][second]
    path.write_text(json.dumps(told))
    with pytest.raises(CogViewError, match="not the key"):
        read_key(questionnaire)
    path.unlink()
    with pytest.raises(CogViewError, match="cannot be read"):
        read_key(questionnaire)
