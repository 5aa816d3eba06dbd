"""A YouTokenToMe model gives the library's pieces, serves wherever a text tokenizer does, and is refused if damaged."""

import pickle
import re
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.errors import CogViewError
from cogview.generation.loading import load
from cogview.models.folder import save_pretrained
from cogview.text.known_words import word_runs
from cogview.text.tokenizer import TextTokenizer
from tiny import tiny_model

FILE = Path(__file__).with_name("youtokentome.model")
"""By youtokentome 1.0.6: `BPE.train(data, model, 150, coverage=1.0, n_threads=1, pad_id=0, unk_id=1, bos_id=2,
eos_id=3)`, of six lines of data:

a red cat sits on the blue table near the red dog
the dog and the cat eat the green apple at the table
a green apple lies on a red ground near the blue house
красная кошка сидит на синем столе рядом с красной собакой
собака и кошка едят зелёное яблоко на столе
зелёное яблоко лежит на красной земле рядом с синим домом
"""

WHITESPACE = " \t\n\v\f\r"
OTHER_SPACES = "\u00a0\u3000\u2028\x85\x1c\u200b"


@dataclass(frozen=True)
class Model:
    """What a file says: code points and pieces, rules, and the four special pieces."""

    characters: list[tuple[int, int]]
    rules: list[tuple[int, int, int]]
    specials: tuple[int, int, int, int]

    @property
    def content(self) -> bytes:
        rows = [(len(self.characters), len(self.rules)), *self.characters, *self.rules, self.specials]
        return "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()

    def plain_pieces(self, text: str) -> list[int]:
        """Encode by trying each rule on each place, again and again."""
        unknown = self.specials[0]
        by_character = {chr(code_point): piece for code_point, piece in self.characters}
        encoded = []
        for word in re.sub(f"[{WHITESPACE}▁]", " ", text).split(" "):
            pieces: list[int] = []
            for piece in (by_character.get(character, unknown) for character in "▁" + word):
                if piece != unknown or pieces[-1] != unknown:
                    pieces.append(piece)
            while self._merge_once(pieces):
                pass
            encoded += pieces if word else []
        return encoded

    def _merge_once(self, pieces: list[int]) -> bool:
        for left, right, merged in self.rules:
            for place in range(len(pieces) - 1):
                if pieces[place : place + 2] == [left, right]:
                    pieces[place : place + 2] = [merged]
                    return True
        return False


SMALL = Model(
    characters=[(ord("▁"), 4), (ord("a"), 5), (ord("b"), 6), (ord("я"), 7)],
    rules=[(5, 6, 8), (4, 8, 9), (8, 8, 10)],
    specials=(1, 0, 2, 3),
)


def random_model(random: Random) -> Model:
    letters = "▁ab" + random.choice(["", "я", "яё中😀"])
    are_present = (True, *(random.random() < 0.5 for _ in range(3)))
    num_rules = random.randrange(10)
    pieces = list(range(sum(are_present) + len(letters) + num_rules))
    random.shuffle(pieces)
    specials = tuple(pieces.pop() if is_present else -1 for is_present in are_present)
    characters = [(ord(letter), pieces.pop()) for letter in letters]
    space, *made = [piece for _, piece in characters]
    rules: dict[tuple[int, int], int] = {}
    while len(rules) < num_rules:
        pair = (random.choice([space, *made]), random.choice(made))
        if pair not in rules:
            rules[pair] = pieces.pop()
            made.append(rules[pair])
    return Model(characters, [(*pair, merged) for pair, merged in rules.items()], specials)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_file(FILE)


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_those_of_trying_each_rule_everywhere(seed: int) -> None:
    random = Random(seed)
    for _ in range(50):
        model = random_model(random)
        text = "".join(random.choices("ab ", k=20))
        assert TextTokenizer(model.content).encode(text) == model.plain_pieces(text)


@settings(max_examples=100)
@given(
    random=st.randoms(use_true_random=True),
    text=st.text(alphabet="abяё中😀▁é<UNK>" + WHITESPACE + OTHER_SPACES, max_size=60) | st.text(max_size=20),
)
def test_any_text_is_read(random: Random, text: str) -> None:
    model = random_model(random)
    tokenizer = TextTokenizer(model.content)
    pieces = tokenizer.encode(text)
    assert pieces == tokenizer.encode(text) == model.plain_pieces(text)
    words = tokenizer.words(text)
    assert len(words) == len(pieces)
    assert "".join(words) == "".join("▁" + word for word in re.split(f"[{WHITESPACE}▁]", text) if word)
    if tokenizer.unknown_piece not in pieces:
        assert tokenizer.decode(pieces) == "".join(words).replace("▁", " ").removeprefix(" ")


@pytest.mark.parametrize(
    ("text", "pieces", "words", "decoded"),
    [  # by youtokentome 1.0.6
        ("a red cat", [43, 56, 93], ["▁a", "▁red", "▁cat"], "a red cat"),
        (
            "the dog sits on the table",
            [44, 111, 4, 149, 30, 116, 44, 103],
            ["▁the", "▁dog", "▁", "sit", "s", "▁on", "▁the", "▁table"],
            "the dog sits on the table",
        ),
        (
            "красная собака сидит на зелёной земле",
            [140, 132, 120, 54, 70, 33, 139],
            ["▁красная", "▁собака", "▁сидит", "▁на", "▁зелёно", "й", "▁земле"],
            "красная собака сидит на зелёной земле",
        ),
        ("кошка и apple", [78, 4, 19, 98], ["▁кошка", "▁", "и", "▁apple"], "кошка и apple"),
        ("Кошка", [4, 1, 76], ["▁", "К", "ошка"], "<UNK>ошка"),
        ("cat\u00a0dog", [93, 1, 21, 23, 27], ["▁cat", "\u00a0", "d", "o", "g"], "cat<UNK>dog"),
        (
            "a 中文cat 😀\u3000!",
            [43, 4, 1, 91, 4, 1],
            ["▁a", "▁", "中文", "cat", "▁", "😀\u3000!"],
            "a <UNK>cat <UNK>",
        ),
        (
            "\x1ccat\x0bdog\tна\x85столе",
            [4, 1, 91, 111, 54, 1, 9, 104],
            ["▁", "\x1c", "cat", "▁dog", "▁на", "\x85", "с", "толе"],
            "<UNK>cat dog на<UNK>столе",
        ),
        ("▁a▁▁кот▁", [43, 45, 6, 24], ["▁a", "▁к", "о", "т"], "a кот"),
        ("", [], [], ""),
        (" \n", [], [], ""),
    ],
)
def test_a_trained_model_gives_what_the_library_gives(
    tokenizer: TextTokenizer, text: str, pieces: list[int], words: list[str], decoded: str
) -> None:
    assert tokenizer.encode(text) == pieces
    assert tokenizer.words(text) == words
    assert tokenizer.decode(pieces) == decoded


def test_special_pieces_are_known_and_write_nothing(tokenizer: TextTokenizer) -> None:
    assert tokenizer.num_pieces == 150
    assert (tokenizer.padding_piece, tokenizer.unknown_piece) == (0, 1)
    assert (tokenizer.begin_piece, tokenizer.end_piece) == (2, 3)
    assert tokenizer.decode([2, 43, 56, 93, 3, 0, 0]) == "a red cat"
    assert tokenizer.decode([4, 4, 43, 4]) == "  a ", "as the library: only the first space is left out"
    assert not tokenizer.writes("en")[:4].any()


def test_special_pieces_may_be_absent() -> None:
    model = TextTokenizer(Model([(ord("▁"), 1), (ord("a"), 2)], [], (0, -1, -1, -1)).content)
    assert (model.num_pieces, model.unknown_piece) == (3, 0)
    assert (model.padding_piece, model.begin_piece, model.end_piece) == (None, None, None)


def test_pieces_are_told_apart_by_the_script_of_their_letters(tokenizer: TextTokenizer) -> None:
    english = tokenizer.writes("en")
    assert english[tokenizer.encode("a red cat")].all()
    assert not english[tokenizer.encode("собака")].any()


def test_words_of_a_text_are_found(tokenizer: TextTokenizer) -> None:
    assert word_runs("красная собака, a 猫", tokenizer) == [["красная"], ["собака"], ["a"], ["猫"]]


def test_half_a_surrogate_pair_is_read_as_a_question_mark(tokenizer: TextTokenizer) -> None:
    assert tokenizer.words("a \ud83d") == tokenizer.words("a ?")


def test_a_tokenizer_survives_saving_and_pickling(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "copy.model")
    assert (tmp_path / "copy.model").read_bytes() == FILE.read_bytes()
    for copy in (TextTokenizer.from_file(tmp_path / "copy.model"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode("красная кошка") == tokenizer.encode("красная кошка")


@pytest.mark.slow
def test_a_model_folder_may_hold_one(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    save_pretrained(tiny_model(tmp_path, text_tokenizer=tokenizer), tmp_path / "model")
    pipeline = load(tmp_path / "model", device="cpu")
    assert pipeline.text_tokenizer.fingerprint == tokenizer.fingerprint
    assert len(pipeline.generate("красная кошка", num_candidates=1)) == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("ab" * 10_000, [9, *[10] * 4_999, 8]),
        ("b" * 20_000, [4, *[6] * 20_000]),
        ("中" * 20_000, [4, 1]),
        ("b中" * 10_000, [4, *[6, 1] * 10_000]),
    ],
    ids=["merged", "known", "unknown", "both"],
)
def test_a_very_long_word_is_read_in_moderate_time(word: str, pieces: list[int]) -> None:
    assert TextTokenizer(SMALL.content).encode(word) == pieces


def changed(**parts: object) -> bytes:
    return Model(**{**vars(SMALL), **parts}).content  # type: ignore[arg-type]


DAMAGED = {
    "cut off": SMALL.content[:30],
    "only the first line": b"4 3\n",
    "a number too many": SMALL.content + b"5\n",
    "not ASCII": SMALL.content.replace(b"5 6 8", "5 ６ 8".encode()),
    "letters": SMALL.content.replace(b"5 6 8", b"5 x 8"),
    "a lone minus": SMALL.content.replace(b"5 6 8", b"5 - 8"),
    "a fraction": SMALL.content.replace(b"5 6 8", b"5 6.0 8"),
    "a negative count": b"-4 3\n" + SMALL.content.partition(b"\n")[2],
    "huge counts": b"1000000000000 1000000000000\n" + SMALL.content.partition(b"\n")[2],
    "a count of many digits": b"9" * 5000 + b" 3\n" + SMALL.content.partition(b"\n")[2],
    "many numbers": b"4 3\n" + b"1 " * 2**20,
    "a piece of many digits": SMALL.content.replace(b"5 6 8", b"5 6 " + b"8" * 5000),
    "a character twice": changed(characters=[*SMALL.characters[:3], (ord("a"), 7)]),
    "no space": changed(characters=[(ord("c"), 4), *SMALL.characters[1:]]),
    "a surrogate": changed(characters=[*SMALL.characters[:3], (0xD800, 7)]),
    "no code point": changed(characters=[*SMALL.characters[:3], (0x110000, 7)]),
    "a negative code point": changed(characters=[*SMALL.characters[:3], (-7, 7)]),
    "a character's piece twice": changed(characters=[*SMALL.characters[:3], (ord("я"), 6)]),
    "a piece out of range": changed(rules=[*SMALL.rules[:2], (8, 8, 11)]),
    "a negative piece": changed(rules=[*SMALL.rules[:2], (8, 8, -1)]),
    "a rule's piece twice": changed(rules=[*SMALL.rules[:2], (8, 8, 9)]),
    "a rule of unknown pieces": changed(rules=[(5, 60, 8), *SMALL.rules[1:]]),
    "a rule of later pieces": changed(rules=[*SMALL.rules[1:], SMALL.rules[0]]),
    "a rule of special pieces": changed(rules=[*SMALL.rules[:2], (8, 1, 10)]),
    "a pair with two rules": changed(rules=[*SMALL.rules[:2], (5, 6, 10)]),
    "no unknown": changed(specials=(-1, 0, 2, 3)),
    "a special piece twice": changed(specials=(1, 0, 2, 2)),
    "a special piece out of range": changed(specials=(1, 0, 2, 390)),
    "a special piece below -1": changed(specials=(1, 0, 2, -3)),
    "pieces that double in length": changed(
        rules=[(5, 5, 8), *((piece, piece, piece + 1) for piece in range(8, 90))],
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_and_little_memory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "damaged.model"
    path.write_bytes(DAMAGED[what])
    tracemalloc.start()
    try:
        with pytest.raises(CogViewError, match=r"damaged\.model is a YouTokenToMe model") as error:
            TextTokenizer.from_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


@given(st.data())
def test_a_file_with_one_byte_changed_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(SMALL.content)
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
        st.sampled_from(b"0123456789- \nx\xff\0")
    )
    try:
        tokenizer = TextTokenizer(bytes(content))
    except CogViewError:
        return
    assert all(0 <= piece < tokenizer.num_pieces for piece in tokenizer.encode("abab яb"))
