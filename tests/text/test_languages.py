"""Which pieces a text in a language may have."""

from importlib import resources

import numpy as np

from cogview.text.tokenizer import TextTokenizer


def test_pieces_are_told_apart_by_the_script_of_their_letters() -> None:
    tokenizer = TextTokenizer((resources.files("cogview") / "bundled" / "text.model").read_bytes())
    chinese, english = tokenizer.writes("zh"), tokenizer.writes("en")
    for text, allowed, other in (
        ("蓝色背景上的一只猫，3个苹果", chinese, english),
        ("a cat to the left of 3 apples, on a blue ground", english, chinese),
        ("猫 кот".split()[1], chinese & ~english, english),  # spelt in bytes, which may also be Chinese
    ):
        pieces = np.array(tokenizer.encode(text))
        spelt = tokenizer.words(text)
        assert allowed[[piece for piece, word in zip(pieces, spelt, strict=True) if word != "▁"]].all()
        assert not other[pieces].all()
    assert (chinese | english).mean() > 0.98
