"""A transformer in a file is the one that was written, whatever becomes of the file."""

from pathlib import Path

import pytest
import torch

from cogview.decoding.weights import Weights
from cogview.errors import CogViewError
from cogview.models.weights import write_transformer
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.quantized import QuantizedRows, is_quantized
from cogview.transformer.stored import StoredTransformer

CONFIG = TransformerConfig(
    num_layers=2, hidden_size=32, num_heads=2, vocabulary_size=40, num_positions=20, qk_norm=True
)
STATES = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))


def written(path: Path, dtype: torch.dtype | None = None) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(CONFIG).eval()
    write_transformer(path, transformer, dtype)
    return transformer


def prepared(transformer: Transformer | StoredTransformer, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return what some maps make of some states, and what decoding reads beside the maps."""
    weights = Weights(transformer, dtype=dtype)
    first, base = weights.maps[0], weights.base
    return [
        first.query_key_value(STATES),
        weights.maps[1].mlp_inner(STATES, True),
        base.head(range(3, 30))(STATES),
        base.embed_tokens(torch.arange(7)).float(),
        base.positions.float(),
        base.final_norm(STATES),
        base.blocks[1].heads_norm(first.query_key_value(STATES)),
    ]


@pytest.mark.parametrize("stored_dtype", [torch.float32, torch.float16, torch.int8], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8], ids=str)
@pytest.mark.slow
def test_what_is_read_in_parts_is_what_the_module_would_be(
    tmp_path: Path, stored_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    written(tmp_path / "a.safetensors", stored_dtype)
    stored = StoredTransformer(tmp_path / "a.safetensors", CONFIG, "cpu", dtype)
    in_parts = prepared(stored, dtype)
    assert stored.latest is stored, "nothing needs the module"
    whole = prepared(stored.module, dtype)
    assert stored.latest is stored.module
    for part, wanted in zip(in_parts, whole, strict=True):
        assert torch.equal(part, wanted)


def test_float32_comes_back_and_int8_is_the_nearest_by_rows(tmp_path: Path) -> None:
    transformer = written(tmp_path / "a.safetensors")
    exact = StoredTransformer(tmp_path / "a.safetensors", CONFIG, "cpu", torch.float32)
    rounded = StoredTransformer(tmp_path / "a.safetensors", CONFIG, "cpu", torch.int8)
    write_transformer(tmp_path / "b.safetensors", transformer, torch.int8)
    read = StoredTransformer(tmp_path / "b.safetensors", CONFIG, "cpu", torch.float32)
    assert (exact.rounded_to, rounded.rounded_to, read.rounded_to) == (None, torch.int8, None)
    for name, tensor in transformer.state_dict().items():
        assert torch.equal(exact.module.state_dict()[name], tensor)
        nearest = QuantizedRows.of(tensor).floats() if is_quantized(name) else tensor
        assert torch.equal(rounded.module.state_dict()[name], nearest)
        assert torch.equal(read.module.state_dict()[name], nearest)


def test_a_file_that_takes_its_place_changes_nothing(tmp_path: Path) -> None:
    transformer = written(tmp_path / "a.safetensors")
    stored = StoredTransformer(tmp_path / "a.safetensors", CONFIG, "cpu", torch.float32)
    write_transformer(tmp_path / "b.safetensors", Transformer(CONFIG))
    (tmp_path / "b.safetensors").replace(tmp_path / "a.safetensors")
    for name, tensor in stored.module.state_dict().items():
        assert torch.equal(tensor, transformer.state_dict()[name])


@pytest.mark.parametrize("data", [b"", b"x" * 100_000])
def test_a_file_that_is_changed_where_it_lies_is_told_of(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    written(path)
    stored = StoredTransformer(path, CONFIG, "cpu", torch.float32)
    path.write_bytes(data)
    with pytest.raises(CogViewError, match="changed"):
        Weights(stored)
    with pytest.raises(CogViewError, match="changed"):
        _ = stored.module
