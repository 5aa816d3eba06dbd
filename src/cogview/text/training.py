"""Training of a SentencePiece model with byte fallback."""

import io
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from sentencepiece import SentencePieceTrainer

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_bytes
from cogview.text.config import TextTokenizerConfig
from cogview.text.tokenizer import NORMALIZATION, valid_text

_BOUNDARY = "‖"  # no piece crosses it; removed from the texts first
_HAN = re.compile("[㐀-鿿豈-﫿]+")
_SPACED_WORD = re.compile(r"[^\W\d_㐀-鿿豈-﫿]+")


def train_text_tokenizer(
    texts: Iterable[str], path: Path, config: TextTokenizerConfig, words: Collection[str] = ()
) -> None:
    """Train a unigram SentencePiece model with byte fallback and write it to a file.

    The same texts in the same order give the same file. No piece is reserved for beginning, end or padding: those
    are separators of the token sequence.

    Differs from the paper: whatever the vocabulary lacks is spelt in bytes rather than lost as unknown.

    Args:
        texts: training texts; empty ones are skipped, and what is not valid Unicode is read as a question mark.
        path: the model file to write.
        config: size and coverage.
        words: Chinese words to become pieces, if the texts have them; no piece crosses their borders. Captions from
            templates repeat whole phrases, and Chinese has no spaces that would keep a phrase from becoming one piece.
            A model would then know "blue ground with" as one thing, and learn each ground anew.

    Raises:
        CogViewError: there is no text to train on.
        UsageError: there are fewer pieces than characters in the texts.

    Paper: section 2.2.
    """
    chinese_words = {valid_text(word) for word in words if word}
    lines = [
        _mark_words(line, chinese_words)
        for text in texts
        if (line := " ".join(valid_text(text).replace("\0", "").split()))
    ]
    if not lines:
        raise CogViewError(
            "There are no texts to train a text tokenizer on: give captions that are not empty."
        )
    counts = Counter(word for line in lines for word in _SPACED_WORD.findall(line))
    seen = chinese_words.intersection(part for line in lines for part in line.split(_BOUNDARY))
    candidates = seen.union(word for word, count in counts.items() if count > 1)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter([*lines, *map(_presentation, sorted(candidates))]),
            model_writer=model,
            model_type="unigram",
            vocab_size=config.num_pieces,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=config.character_coverage,
            max_sentencepiece_length=config.max_piece_characters,
            max_sentence_length=1 << 16,
            normalization_rule_name=NORMALIZATION,
            split_digits=True,
            pretokenization_delimiter=_BOUNDARY,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            shuffle_input_sentence=False,
            num_threads=1,  # sums of floats depend on the split
            minloglevel=2,
        )
    except RuntimeError as error:
        if "required_chars" in str(error):
            raise UsageError(
                f"num_pieces={config.num_pieces} is too few: the texts have more different characters than that;"
                " give more, or a smaller character_coverage."
            ) from error
        raise CogViewError(f"The text tokenizer cannot be trained on these texts: {error}") from error
    atomic_write_bytes(path, model.getvalue())


def _presentation(word: str) -> str:
    """Return a training line that makes SentencePiece consider a word, and each of its characters.

    Its candidates are strings seen before different characters; the end of a word that is always marked does not count.
    A digit is always a piece by itself, so the word is shown before two of them. SentencePiece also drops a word if it
    has not kept its characters, so these are shown alone.
    """
    space = "" if _HAN.match(word) else " "
    return "".join(f"1{space}{part}" for part in (*word, word, word)) + "2"


def _mark_words(text: str, words: Collection[str]) -> str:
    """Put boundaries around the known words among a text's Chinese characters.

    The longest known word is taken at each place; the rest stays together.
    """
    longest = max(map(len, words), default=0)

    def split(match: re.Match[str]) -> str:
        han = match[0]
        parts = [""]
        start = 0
        while start < len(han):
            lengths = range(min(longest, len(han) - start), 0, -1)
            length = next((length for length in lengths if han[start : start + length] in words), 0)
            if length:
                parts += [han[start : start + length], ""]
            else:
                parts[-1] += han[start]
            start += length or 1
        return _BOUNDARY + _BOUNDARY.join(part for part in parts if part) + _BOUNDARY

    return _HAN.sub(split, text.replace(_BOUNDARY, " "))
