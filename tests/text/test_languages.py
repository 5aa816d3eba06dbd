"""Which pieces a text in a language may have."""

from importlib import resources

from cogview.text.tokenizer import TextTokenizer


def test_pieces_are_told_apart_by_the_script_of_their_letters() -> None:
    tokenizer = TextTokenizer((resources.files("cogview") / "bundled" / "text.model").read_bytes())
    chinese, english = tokenizer.writes("zh"), tokenizer.writes("en")
    for text, allowed, other in (
        ("蓝色背景上的一只猫，3个苹果", chinese, english),
        ("a cat to the left of 3 apples, on a blue ground", english, chinese),
    ):
        pieces = tokenizer.encode(text)
        assert allowed[pieces].all()
        assert not other[pieces].all()
    assert not english[tokenizer.encode("кот")].all()  # it is spelt in bytes
    assert not (chinese | english)[tokenizer.unknown_piece]
    assert (chinese | english).mean() > 0.98
