"""What is emulated in fp32 is what fp16 gives."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from emulated_half import EmulatedHalf, round_to_half


def values(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return round_to_half(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: x + y,
        lambda x, y: x * y,
        lambda x, y: x / y,
        lambda x, y: (x * 300) * (y * 300),
        lambda x, y: x.clone().mul_(y),
        lambda x, y: x[:, ::2] + y[:, 1::2],
    ],
)
def test_operations_on_single_numbers_have_the_bits_of_fp16(operation) -> None:
    x, y = values(64, 64, scale=3.0), values(64, 64, seed=1)
    with EmulatedHalf():
        emulated = operation(x, y)
    assert torch.equal(emulated, operation(x.half(), y.half()).float())


def test_products_differ_from_fp16_by_its_last_bit_at_most() -> None:
    x, y = values(16, 32), values(32, 16, seed=1)
    with EmulatedHalf():
        emulated = x @ y
    assert torch.equal(emulated, round_to_half(emulated))
    torch.testing.assert_close(emulated, (x.half() @ y.half()).float(), rtol=2**-10, atol=2**-10)


def test_what_fp16_cannot_hold_is_infinite_forward_and_backward() -> None:
    x = torch.tensor([300.0, 200.0], requires_grad=True)
    with EmulatedHalf():
        y = x * x
        assert y.tolist() == [float("inf"), 40_000.0]
        (y * 1.0).backward(torch.tensor([1.0, 200.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [600.0, float("inf")], "2 x 200 x 200 is beyond fp16"


def test_a_transformer_has_the_gradients_of_one_in_fp16() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(
        num_layers=2,
        hidden_size=16,
        num_heads=2,
        vocabulary_size=32,
        num_positions=8,
        attention="plain",
        norm_scope="none",
        embedding_gradient_scale=1.0,
    )
    emulated = Transformer(config)
    with torch.no_grad():
        for parameter in emulated.parameters():
            parameter.copy_(round_to_half(parameter))
    real = Transformer(config).half()
    real.load_state_dict(emulated.state_dict())
    tokens, positions = torch.arange(8)[None], torch.arange(8)[None]

    def pull(logits: torch.Tensor) -> torch.Tensor:
        leaf = logits.detach().float().requires_grad_()
        F.cross_entropy(leaf[0], tokens[0]).mul(1024).backward()
        assert leaf.grad is not None
        return leaf.grad

    with EmulatedHalf():
        logits = emulated(tokens, positions)
        logits.backward(round_to_half(pull(logits)))
    expected = real(tokens, positions)
    expected.backward(pull(expected).half())
    torch.testing.assert_close(logits, expected.float(), rtol=0.01, atol=0.002)
    for (name, parameter), other in zip(emulated.named_parameters(), real.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert torch.equal(parameter.grad, round_to_half(parameter.grad)), f"{name} is no fp16"
        difference = (parameter.grad - other.grad.float()).norm() / other.grad.float().norm()
        assert difference < 0.03, name


def test_an_rms_norm_is_one_operation_with_a_kernel_s_own_fp32() -> None:
    """The cube of 1 / rms is in its gradient; of small numbers, fp16 could not hold it."""
    x, slope = values(4, 16, scale=0.002), values(4, 16, seed=1, scale=0.01)
    weight = torch.ones(16)
    results = []
    for within in (EmulatedHalf(), nullcontext()):
        own = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        with within:
            normed = F.rms_norm(own[0], (16,), own[1], eps=1e-6)
            normed.backward(slope)
        results.append([normed.detach(), *(each.grad for each in own)])
    for emulated, exact in zip(*results, strict=True):
        assert torch.equal(emulated, round_to_half(emulated))
        torch.testing.assert_close(emulated, exact, rtol=2**-10, atol=2**-24)
    assert float(x.square().mean()) ** -1.5 > 65_504
