"""Modules without values: the shapes of the others, and no generator moves."""

import pytest
import torch

from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.uninitialised import uninitialised

CONFIG = TransformerConfig(num_layers=1, hidden_size=32, num_heads=2, vocabulary_size=64, num_positions=16)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_transformer_without_values_has_the_shapes_of_one_with(device: str) -> None:
    torch.manual_seed(0)
    wanted = {name: tensor.shape for name, tensor in Transformer(CONFIG).state_dict().items()}
    before = torch.get_rng_state()
    with uninitialised(device):
        found = Transformer(CONFIG)
    assert {name: tensor.shape for name, tensor in found.state_dict().items()} == wanted
    assert {parameter.device.type for parameter in found.parameters()} == {device}
    assert torch.equal(torch.get_rng_state(), before)


def test_outside_weights_are_drawn_as_ever() -> None:
    torch.manual_seed(0)
    wanted = Transformer(CONFIG).state_dict()
    with uninitialised("meta"):
        Transformer(CONFIG)
    torch.manual_seed(0)
    found = Transformer(CONFIG).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
