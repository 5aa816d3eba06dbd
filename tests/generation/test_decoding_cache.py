"""Attention by sums of rows is attention: at every length, over every block, after prompts were shared."""

import pytest
import torch

from cogview.generation.cache import FusedCache, TableCache
from cogview.transformer.config import TransformerConfig

CONFIG = TransformerConfig(num_layers=2, hidden_size=120, num_heads=3, vocabulary_size=16, num_positions=400)
BATCH, CAPACITY = 4, 300


def random_heads(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, CONFIG.head_size, generator=generator)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
@pytest.mark.parametrize("num_tokens", [0, 1, 126, 127, 128, 129, 255, 256, 299])
@torch.inference_mode()
def test_sums_of_rows_are_the_fused_kernel_s_attention(
    num_tokens: int, dtype: torch.dtype, error: float
) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    caches = TableCache(CONFIG, BATCH, CAPACITY, dtype), FusedCache(CONFIG, BATCH, CAPACITY)
    for layer in range(CONFIG.num_layers):
        key, value = random_heads(generator, 2, BATCH, CONFIG.num_heads, num_tokens)
        for cache in caches:
            cache.fill(layer, key, value)
            cache.length = num_tokens
    for _ in range(min(3, CAPACITY - num_tokens)):  # the later steps see what the earlier ones stored
        steps = [cache.step() for cache in caches]
        for layer in range(CONFIG.num_layers):
            heads = random_heads(generator, BATCH, 3, CONFIG.num_heads)
            heads[:, 0] /= CONFIG.head_size**0.5
            by_sums, fused = (step(layer, heads) for step in steps)
            assert by_sums.shape == fused.shape == heads[:, 0].shape
            assert (by_sums - fused).abs().max() < error
        for cache in caches:
            cache.length += 1


@pytest.mark.parametrize("kind", [TableCache, FusedCache])
@torch.inference_mode()
def test_prompts_are_copied_to_their_rows(kind: type[TableCache] | type[FusedCache]) -> None:
    generator = torch.Generator().manual_seed(0)
    together, shared = kind(CONFIG, 2, CAPACITY), kind(CONFIG, 2, CAPACITY)
    prompts = []
    keys, values = random_heads(generator, 2, CONFIG.num_layers, 2, CONFIG.num_heads, 140)
    for row in range(2):
        prompt = kind(CONFIG, 1, 140)
        for layer in range(CONFIG.num_layers):
            prompt.fill(layer, keys[layer, row, None], values[layer, row, None])
        prompt.length = 140
        prompts.append(prompt)
    for layer in range(CONFIG.num_layers):
        together.fill(layer, keys[layer], values[layer])
    together.length = 140
    shared.copy_prompts(prompts)  # type: ignore[arg-type]
    assert shared.length == 140
    heads = random_heads(generator, 2, 3, CONFIG.num_heads)
    for layer in range(CONFIG.num_layers):
        assert torch.equal(shared.step()(layer, heads), together.step()(layer, heads))


@pytest.mark.parametrize("starts", [(0, 0), (0, 5), (130, 3), (139, 139)])
@pytest.mark.parametrize("kind", [TableCache, FusedCache])
@torch.inference_mode()
def test_sequences_of_unlike_length_attend_to_their_own_tokens_only(
    kind: type[TableCache] | type[FusedCache], starts: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    heads = random_heads(generator, 2, 3, CONFIG.num_heads)
    prompts, alone = [], []
    for row, start in enumerate(starts):
        keys, values = random_heads(generator, 2, CONFIG.num_layers, 1, CONFIG.num_heads, 140 - start)
        plain, placed = kind(CONFIG, 1, 141 - start), kind(CONFIG, 1, 140, start=start)
        for cache in (plain, placed):
            for layer in range(CONFIG.num_layers):
                cache.fill(layer, keys[layer], values[layer])
        placed.length, plain.length = 140, 140 - start
        prompts.append(placed)
        alone.append(plain.step()(1, heads[row, None]))
    together = kind(CONFIG, 2, CAPACITY)
    together.copy_prompts(prompts)  # type: ignore[arg-type]
    assert (together.step()(1, heads) - torch.cat(alone)).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.inference_mode()
def test_scores_too_large_for_an_exponential_or_for_fp16_do_no_harm(dtype: torch.dtype) -> None:
    cache = TableCache(CONFIG, 1, CAPACITY, dtype)
    ones = torch.ones(1, CONFIG.num_heads, CONFIG.head_size)
    attended = cache.step()(0, torch.stack([100 * ones, 100 * ones, ones], dim=1))
    assert torch.equal(attended, ones)
