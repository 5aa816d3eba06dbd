"""What is foretold of drawing is what the engine holds."""

import pytest
import torch

from cogview.decoding.pool import PagePool, Row
from cogview.planning.devices import GPUS, find_device
from cogview.planning.generation import generation_memory
from cogview.planning.plan import tokens_of
from cogview.recipes import text_to_image
from cogview.transformer.model import Transformer

CONFIG, TEMPLATE = tokens_of(text_to_image.tiny())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_caches_are_as_large_as_on_a_cpu(dtype: torch.dtype) -> None:
    transformer = Transformer(CONFIG).to(dtype)
    pool = PagePool(CONFIG, 1, dtype)
    rows = [Row(pool, TEMPLATE.max_prefix_tokens + TEMPLATE.num_codes_per_image - 1) for _ in range(3)]
    memory = generation_memory(CONFIG, TEMPLATE, find_device("cpu"), dtype)
    assert 3 * memory.cache_per_picture == sum(row.num_pages for row in rows) * pool.page_bytes
    assert memory.fixed["weights"] == sum(weight.nbytes for weight in transformer.parameters())


def test_the_largest_batch_is_the_largest_and_guidance_halves_it() -> None:
    memory = generation_memory(CONFIG, TEMPLATE, GPUS["h100"], torch.bfloat16)
    limit = memory.total(50)
    assert memory.largest_batch(limit) == 50
    assert memory.largest_batch(limit - 1) == 49
    assert memory.largest_batch(memory.total(1) - 1) == 0
    guided = generation_memory(CONFIG, TEMPLATE, GPUS["h100"], torch.bfloat16, guided=True)
    assert guided.cache_per_picture == 2 * memory.cache_per_picture
