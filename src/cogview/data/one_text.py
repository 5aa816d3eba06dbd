"""Token shards with the same texts for all pictures, to train a style."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from cogview.data.shards import TokenShards
from cogview.text.known_words import KnownWords


class OneTextShards(TokenShards):
    """Token shards whose captions are replaced by the same texts for all pictures.

    Args:
        folder: folder of the shards.
        texts: pieces of each text; each epoch draws one per picture.
        image_tokenizer: fingerprint that the shards must have.
        text_tokenizer: fingerprint that the shards must have.
        words: words of the texts.

    Paper: 3.3, 1,000 pictures with the text "An image of {style} style".
    """

    def __init__(
        self,
        folder: Path,
        texts: Sequence[Sequence[int]],
        *,
        image_tokenizer: str | None = None,
        text_tokenizer: str | None = None,
        words: KnownWords | None = None,
    ) -> None:
        super().__init__(folder, image_tokenizer=image_tokenizer, text_tokenizer=text_tokenizer)
        self._texts = [np.asarray(text, dtype=np.int32) for text in texts]
        self.words = words

    def used_pieces(self) -> Int64[np.ndarray, "n"]:
        """Return the pieces of the texts, each once, sorted."""
        return np.unique(np.concatenate(self._texts)).astype(np.int64)

    def num_captions(self, index: int) -> int:
        """Return the number of texts."""
        return len(self._texts)

    def pieces(self, index: int, caption: int) -> Int32[np.ndarray, "n"]:
        """Return the pieces of a text."""
        return self._texts[caption]

    def caption_lengths(self) -> Int64[np.ndarray, "m"]:
        """Return the number of pieces of each text."""
        return np.array([len(text) for text in self._texts], dtype=np.int64)
