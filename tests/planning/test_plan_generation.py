"""What is foretold of drawing is what the engine holds."""

import dataclasses
from pathlib import Path

import pytest
import torch

from cogview.decoding.config import CacheName
from cogview.decoding.pool import PagePool, Row, cache_dtype
from cogview.decoding.weights import Weights
from cogview.models.weights import write_transformer
from cogview.planning.devices import GPUS, find_device
from cogview.planning.generation import generation_memory
from cogview.recipes import text_to_image
from cogview.recipes.resolved import resolved
from cogview.transformer.config import HeadKind
from cogview.transformer.model import Transformer
from cogview.transformer.quantized import is_quantized
from cogview.transformer.stored import StoredTransformer

CONFIG, TEMPLATE = resolved(text_to_image.tiny())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@pytest.mark.parametrize("cache", ["auto", "float16"])
def test_caches_are_as_large_as_on_a_cpu(dtype: torch.dtype, cache: CacheName) -> None:
    pool = PagePool(CONFIG, 1, cache_dtype(CONFIG, dtype, "cpu", cache))
    rows = [Row(pool, TEMPLATE.max_prefix_tokens + TEMPLATE.num_codes_per_image - 1) for _ in range(3)]
    memory = generation_memory(CONFIG, TEMPLATE, find_device("cpu"), dtype, cache=cache)
    assert 3 * memory.cache_per_picture == sum(row.num_pages for row in rows) * pool.page_bytes


@pytest.mark.parametrize("head", ["tied", "own"])
def test_weights_are_as_large_as_what_is_prepared(tmp_path: Path, head: HeadKind) -> None:
    """Every matrix is held once, in whichever form; the head's rows beside the table of which they are a part."""
    config = dataclasses.replace(CONFIG, head=head)
    write_transformer(tmp_path / "a.safetensors", Transformer(config), torch.float16)
    for dtype in (torch.float32, torch.int8):
        weights = Weights(StoredTransformer(tmp_path / "a.safetensors", config, "cpu", dtype), dtype=dtype)
        memory = generation_memory(config, TEMPLATE, find_device("cpu"), dtype)
        tables = [weights.table] if head == "tied" else [weights.table, weights._head_rows]
        held = sum(each.nbytes if isinstance(each, torch.Tensor) else each.values.nbytes for each in tables)
        outside = [each for name, each in Transformer(config).state_dict().items() if not is_quantized(name)]
        assert memory.fixed["weights"] == held + sum(each.nbytes for each in outside)
        matrices = sum(
            each.numel()
            for name, each in Transformer(config).state_dict().items()
            if is_quantized(name) and name.startswith("blocks.")
        )
        rows = len(TEMPLATE.vocabulary.image_codes) * config.hidden_size if dtype == torch.float32 else 0
        assert memory.fixed["prepared_weights"] == (matrices + rows) * dtype.itemsize


def test_the_largest_batch_is_the_largest_and_guidance_halves_it() -> None:
    memory = generation_memory(CONFIG, TEMPLATE, GPUS["h100"], torch.bfloat16)
    limit = memory.total(50)
    assert memory.largest_batch(limit) == 50
    assert memory.largest_batch(limit - 1) == 49
    assert memory.largest_batch(memory.total(1) - 1) == 0
    guided = generation_memory(CONFIG, TEMPLATE, GPUS["h100"], torch.bfloat16, guided=True)
    assert guided.cache_per_picture == 2 * memory.cache_per_picture
