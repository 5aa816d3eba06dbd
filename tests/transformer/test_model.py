"""The transformer: shapes, causality, parameter counts, what is tied and what is not."""

import pytest
import torch

from cogview.errors import UsageError
from cogview.recipes import text_to_image
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

CONFIG = TransformerConfig(num_layers=2, hidden_size=32, num_heads=4, vocabulary_size=50, num_positions=24)


def build(config: TransformerConfig = CONFIG) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config).eval()


def random_tokens(batch: int = 2, num: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, CONFIG.vocabulary_size, (batch, num), generator=generator)
    return tokens, torch.arange(num).expand(batch, num)


@pytest.mark.parametrize("name", ["layer_norm", "norm_scope", "attention", "attention_pattern"])
def test_a_choice_that_does_not_exist_is_refused(name):
    config = TransformerConfig(num_layers=1, hidden_size=8, num_heads=1)
    object.__setattr__(config, name, "sandwhich")  # the tests' checks of types would refuse it before us
    with pytest.raises(UsageError, match=f"{name} .*'sandwhich'"):
        config.__post_init__()


@pytest.mark.parametrize("layer_norm", ["sandwich", "pre", "post"])
def test_parameter_count_is_the_stated_formula(layer_norm):
    config = TransformerConfig(
        num_layers=3, hidden_size=24, num_heads=3, vocabulary_size=40, num_positions=10, layer_norm=layer_norm
    )
    assert sum(p.numel() for p in Transformer(config).parameters()) == config.num_parameters


def test_paper_model_has_4_billion_parameters():
    config = text_to_image.paper_4b().transformer
    assert 3.9e9 <= config.num_parameters <= 4.0e9
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters


def test_head_is_the_embedding():
    model = build()
    tokens, positions = random_tokens()
    hidden = model.hidden_states(tokens, positions)
    assert torch.equal(model.logits(hidden), hidden @ model.embedding.tokens.weight.T)


def test_legal_rows_are_a_slice_of_all_logits():
    model = build()
    hidden = model.hidden_states(*random_tokens())
    assert torch.allclose(model.logits(hidden, range(10, 31)), model.logits(hidden)[..., 10:31], atol=1e-6)


@pytest.mark.parametrize("attention", ["fused", "relaxed"])
def test_no_token_sees_a_later_one(attention):
    model = build(
        TransformerConfig(
            num_layers=2,
            hidden_size=32,
            num_heads=4,
            vocabulary_size=50,
            num_positions=24,
            attention=attention,
        )
    )
    tokens, positions = random_tokens()
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    before, after = model(tokens, positions), model(changed, positions)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


def test_gradients_do_not_leak_from_later_targets():
    model = build()
    tokens, positions = random_tokens(batch=1)
    embedded: list[torch.Tensor] = []

    def keep(module, inputs, output):
        output.retain_grad()
        embedded.append(output)

    model.embedding.register_forward_hook(keep)
    model(tokens, positions)[0, 5].sum().backward()
    gradient = embedded[0].grad
    assert gradient is not None
    assert (gradient[0, :6].abs().sum(-1) > 0).all()
    assert (gradient[0, 6:] == 0).all()


def test_initial_weights_follow_the_release():
    model = build(TransformerConfig(num_layers=8, hidden_size=128, num_heads=4))
    block = model.blocks[0]
    assert block.attention.query_key_value.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.attention.output.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert block.mlp.output.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert model.embedding.tokens.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert (block.mlp.inner.bias == 0).all()
    assert (block.attention_input_norm.weight == 1).all()


def test_dropout_acts_in_training_only():
    config = TransformerConfig(
        num_layers=1, hidden_size=32, num_heads=4, vocabulary_size=50, num_positions=24, dropout=0.5
    )
    model = build(config)
    tokens, positions = random_tokens()
    assert torch.equal(model(tokens, positions), model(tokens, positions))
    model.train()
    assert not torch.equal(model(tokens, positions), model(tokens, positions))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"num_heads": 5}, "multiple of num_heads"),
        ({"num_layers": 0}, "num_layers"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_impossible_shapes_are_refused(change, what):
    fields = {"num_layers": 1, "hidden_size": 32, "num_heads": 4} | change
    with pytest.raises(UsageError, match=what):
        TransformerConfig(**fields)
