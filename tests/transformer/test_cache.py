"""The cached path agrees with the uncached one at every position."""

import pytest
import torch

from cogview.transformer.cache import KeyValueCache
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("layer_norm", ["sandwich", "pre", "post"])
@pytest.mark.parametrize("attention", ["fused", "relaxed"])
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 1, 3, 2]])
def test_cached_logits_equal_uncached_at_every_position(layer_norm, attention, chunks):
    config = TransformerConfig(
        num_layers=3,
        hidden_size=32,
        num_heads=4,
        vocabulary_size=50,
        num_positions=30,
        layer_norm=layer_norm,
        attention=attention,
    )
    torch.manual_seed(0)
    model = Transformer(config).eval()
    tokens = torch.randint(0, 50, (2, 12))
    positions = torch.stack([torch.arange(12), torch.arange(12) + torch.arange(12) // 5 * 6])
    with torch.no_grad():
        uncached = model(tokens, positions)
        cache = KeyValueCache(config, 2, 12)
        hidden = [
            model.extend(t, p, cache)
            for t, p in zip(tokens.split(chunks, 1), positions.split(chunks, 1), strict=True)
        ]
    assert cache.length == 12
    assert torch.allclose(model.logits(torch.cat(hidden, 1)), uncached, atol=2e-6)
