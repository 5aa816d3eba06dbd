"""Token sets in which some captions have no pieces: sample sheets and held-out figures do without those."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cogview.data.shards import TokenKind, TokenShards, write_manifest, write_shard
from cogview.errors import UsageError
from cogview.models.pretrained import PretrainedModel, TaskModel, fields_of
from cogview.runs.captioning import _held_out_figures
from cogview.runs.samples import captions_of
from cogview.sequence.captioning import CaptionTemplate
from cogview.transformer.model import Transformer
from tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    return tiny_model(tmp_path_factory.mktemp("model"))


def tokens_of(folder: Path, model: PretrainedModel, texts: dict[int, str]) -> TokenShards:
    """Return tokens of some of six pictures, each with its text."""
    codes = np.random.default_rng(0).integers(0, 32, (6, 16)).astype(np.uint16)[list(texts)]
    captions = [[model.text_tokenizer.encode(text)] for text in texts.values()]
    kind = TokenKind(
        image_tokenizer=model.image_fingerprint,
        text_tokenizer=model.text_fingerprint,
        grid=(4, 4),
        num_codes=32,
        num_pieces=model.text_tokenizer.num_pieces,
    )
    write_manifest(folder, kind, [write_shard(folder / "tokens-00000.safetensors", codes, captions)], {})
    return TokenShards(folder)


def captioner_of(model: PretrainedModel) -> TaskModel:
    template = CaptionTemplate.of(model.template)
    torch.manual_seed(0)
    config = dataclasses.replace(model.transformer.config, num_positions=template.num_positions)
    transformer = Transformer(config).eval()
    return TaskModel(
        task="captioning", transformer=transformer, template=fields_of(template), licence="", card=""
    )


def test_sheets_and_figures_do_without_empty_captions(tmp_path: Path, model: PretrainedModel) -> None:
    texts = dict(enumerate(["", "a red cat", "", "two dogs", "", ""]))
    (tmp_path / "some").mkdir()
    some = tokens_of(tmp_path / "some", model, {index: text for index, text in texts.items() if text})
    shards = tokens_of(tmp_path, model, texts)
    assert captions_of(shards, model) == captions_of(some, model) == ("a red cat", "two dogs")
    assert _held_out_figures(model, shards, captioner_of(model)) == _held_out_figures(
        model, some, captioner_of(model)
    )


def test_tokens_without_any_caption_want_sample_texts(tmp_path: Path, model: PretrainedModel) -> None:
    shards = tokens_of(tmp_path, model, {0: "", 1: ""})
    with pytest.raises(UsageError, match="--sample-texts"):
        captions_of(shards, model)
    assert _held_out_figures(model, shards, captioner_of(model)) == {}
