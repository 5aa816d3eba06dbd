"""Sample sheets of training runs."""

from itertools import islice, pairwise
from pathlib import Path

from cogview.data.shards import TokenShards
from cogview.errors import UsageError
from cogview.generation.contact_sheet import contact_sheet, save_sheet
from cogview.generation.pipeline import Pipeline
from cogview.models.pretrained import PretrainedModel

NUM_SAMPLE_TEXTS = 4
NUM_SAMPLE_CANDIDATES = 2


def captions_of(shards: TokenShards, model: PretrainedModel) -> tuple[str, ...]:
    """Return non-empty captions spread over the tokens, cut to what the model reads.

    Raises:
        UsageError: all are empty.
    """
    num_texts = min(NUM_SAMPLE_TEXTS, len(shards))
    starts = [len(shards) * number // num_texts for number in range(num_texts + 1)]
    decode = Pipeline(model).text_tokenizer.decode
    texts: list[str] = []
    for start, stop in pairwise(starts):
        read = (decode(model.template.clip(shards.pieces(index, 0)).tolist()) for index in range(start, stop))
        texts += islice((text for text in read if text.strip()), 1)
    if not texts:
        raise UsageError(
            f"the captions of {shards.folder} are empty: give texts for the sample sheets with --sample-texts"
        )
    return tuple(texts)


def draw_samples(
    model: PretrainedModel, texts: tuple[str, ...], path: Path, adapter: str | None = None
) -> None:
    """Draw a contact sheet with the current transformer or adapter, always with the same seeds."""
    rows = Pipeline(model).generate(texts, NUM_SAMPLE_CANDIDATES, adapter=adapter)
    save_sheet(contact_sheet([[picture.image for picture in row] for row in rows], texts), path)
