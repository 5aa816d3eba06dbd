"""The chunked loss is the plain one, in value and gradient, and never holds a matrix of all logits."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cogview.training.token_loss import token_losses


def inputs(num: int = 23, rows: int = 40, width: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num, width, generator=generator, requires_grad=True)
    table = torch.randn(rows, width, generator=generator, requires_grad=True)
    targets = torch.randint(rows, (num,), generator=generator)
    weights = torch.rand(num, generator=generator)
    weights[[2, 5, num - 1]] = 0.0
    return hidden, table, targets, weights


def plain(hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor, z: float) -> Tensor:
    logits = hidden.double() @ table.double().T
    nats = F.cross_entropy(logits, targets, reduction="none")
    return (weights * (nats + z * logits.logsumexp(1) ** 2)).sum()


@pytest.mark.parametrize("chunk_tokens", [1, 5, 23, 100])
@pytest.mark.parametrize("z", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_the_plain_formula(chunk_tokens: int, z: float) -> None:
    hidden, table, targets, weights = inputs()
    expected = plain(hidden, table, targets, weights, z)
    total, nats, normalisers = token_losses(hidden, table, targets, weights, z, chunk_tokens)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    logits = hidden.detach() @ table.detach().T
    counted = weights > 0
    torch.testing.assert_close(nats[counted], F.cross_entropy(logits, targets, reduction="none")[counted])
    torch.testing.assert_close(normalisers[counted], logits.logsumexp(1)[counted])
    assert not nats.requires_grad
    ours = torch.autograd.grad(total * 3.0, (hidden, table))
    theirs = torch.autograd.grad(expected * 3.0, (hidden, table))
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_targets_of_weight_zero_are_not_scored() -> None:
    hidden, table, targets, weights = inputs()
    with torch.no_grad():
        hidden[weights == 0] = torch.nan
    total, nats, _ = token_losses(hidden, table, targets, weights)
    assert bool(total.isfinite())
    assert nats[weights == 0].tolist() == [0.0] * 3
    of_hidden, of_table = torch.autograd.grad(total, (hidden, table))
    assert bool(of_table.isfinite().all())
    assert bool((of_hidden[weights == 0] == 0).all())


def test_weights_that_are_all_zero_are_no_error() -> None:
    hidden, table, targets, weights = inputs()
    total, _, _ = token_losses(hidden, table, targets, torch.zeros_like(weights))
    assert total.item() == 0.0
    assert [float(g.abs().max()) for g in torch.autograd.grad(total, (hidden, table))] == [0.0, 0.0]


def test_under_autocast_it_is_as_exact_as_products_in_bfloat16() -> None:
    hidden, table, targets, weights = inputs(200, 300, 32)
    expected = plain(hidden, table, targets, weights, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        total, _, _ = token_losses(hidden, table, targets, weights, 0.0, 64)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=2e-3)
    theirs = torch.autograd.grad(expected, (hidden, table))
    for mine, its in zip(torch.autograd.grad(total, (hidden, table)), theirs, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - its).norm() < 0.01 * its.norm()


def test_gradients_in_fp16_keep_rare_rows_under_a_loss_scale() -> None:
    """Rows that are hardly ever meant have gradients below fp16's range; the loss scale lifts them."""
    hidden, table, targets, weights = inputs(12, 30, 8)
    with torch.no_grad():
        table[:20, 0] = 0.0
        table[20:] = 0.0
        table[20:, 0] = -1.0
        hidden[:, 0] = 12.0  # exp(-12) = 6e-6
    targets %= 20
    halves = [x.detach().half().requires_grad_() for x in (hidden, table)]
    total, _, _ = token_losses(*halves, targets, weights, 0.0, 5)
    scaled = torch.autograd.grad(total * 256.0, halves)
    doubles = [x.detach().double().requires_grad_() for x in halves]
    exact = torch.autograd.grad(plain(*doubles, targets, weights, 0.0) * 256.0, doubles)
    assert [gradient.dtype for gradient in scaled] == [torch.float16] * 2
    assert 0 < exact[1][20:].abs().max() / 256 < 2.0**-14  # no normal number of fp16, unscaled
    for mine, its in zip(
        (scaled[0], scaled[1], scaled[1][20:]), (exact[0], exact[1], exact[1][20:]), strict=True
    ):
        assert (mine.double() - its).norm() < 0.02 * its.norm()


@pytest.mark.parametrize("normaliser", [-2_000.0, -5.0, 2_000.0])
def test_a_z_loss_of_large_normalisers_stays_in_the_range_of_fp16(normaliser: float) -> None:
    """That of 2,000 has a slope of 401, which fp16 cannot hold 1,024 times; that of -5 has the slope 0."""
    hidden, table, targets, weights = inputs(12, 30, 8)
    with torch.no_grad():
        for whole in (hidden, table):  # so that fp16 holds all logits exactly
            whole.round_()
        table[:, 0] = 20.0
        hidden[:, 0] = normaliser / 20.0
    halves = [x.detach().half().requires_grad_() for x in (hidden, table)]
    total = (
        token_losses(*halves, targets, weights, 0.1, 5)[0] / 64.0
    )  # gradients in fp16 are those of a loss scale
    doubles = [x.detach().double().requires_grad_() for x in halves]
    exact = torch.autograd.grad(plain(*doubles, targets, weights, 0.1) / 64.0, doubles)
    for mine, its in zip(torch.autograd.grad(total, halves), exact, strict=True):
        assert bool(mine.isfinite().all())
        assert (mine.double() - its).norm() < 0.02 * its.norm()


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that any tensor made meanwhile holds, and counts products."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = self.num_products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.num_products += function is torch.ops.aten.mm.default
        tensors = result if isinstance(result, (tuple, list)) else [result]
        self.numel = max(self.numel, *(t.numel() for t in tensors if isinstance(t, Tensor)), 0)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_matrix_of_all_logits_is_ever_made(dtype: torch.dtype) -> None:
    hidden, table, targets, weights = (x.detach() for x in inputs(200, 300, 8))
    hidden, table = (x.to(dtype).requires_grad_() for x in (hidden, table))
    with LargestTensor() as plainly:
        F.cross_entropy(hidden @ table.T, targets).backward()
    with LargestTensor() as ours:
        token_losses(hidden, table, targets, weights, 1e-4, 20)[0].backward()
    assert plainly.numel == 200 * 300
    assert ours.numel <= 20 * 300


def test_without_gradients_none_is_computed() -> None:
    hidden, table, targets, weights = inputs()
    expected = token_losses(hidden, table, targets, weights)[0].item()
    with LargestTensor() as learning:
        token_losses(hidden, table, targets, weights, 0.0, 7)
    with torch.no_grad(), LargestTensor() as measuring:
        total, _, _ = token_losses(hidden, table, targets, weights, 0.0, 7)
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert (learning.num_products, measuring.num_products) == (9, 3)  # 20 of the targets count: three chunks


_COMPILED = """
import torch
from cogview.training.precision import compiler_failure
from cogview.training.token_loss import token_losses
if compiler_failure(torch.device("cpu")):
    raise SystemExit("no compiler")
torch.manual_seed(0)
inputs = [torch.randn(23, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)]
rest = [torch.randint(40, (23,)), torch.rand(23), 0.1, 12]  # two chunks
results = []
for function in (token_losses, torch.compile(token_losses, dynamic=False, fullgraph=True)):
    total, nats, normalisers = function(*inputs, *rest)
    results.append((total, nats, normalisers, *torch.autograd.grad(total, inputs)))
for eager, compiled in zip(*results, strict=True):
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_it_compiles_in_one_piece() -> None:
    """In a process of its own, since types are not checked in what is compiled."""
    done = subprocess.run([sys.executable, "-c", _COMPILED], capture_output=True, text=True, check=False)
    if "no compiler" in done.stderr:
        pytest.skip("nothing can be compiled here")
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_gpu_computes_the_plain_loss(dtype: torch.dtype) -> None:
    hidden, table, targets, weights = (x.detach().cuda() for x in inputs(200, 300, 32))
    halves = [x.to(dtype).requires_grad_() for x in (hidden, table)]
    doubles = [x.detach().double().requires_grad_() for x in halves]
    expected = plain(*doubles, targets, weights, 1e-3) * 64.0
    total = token_losses(*halves, targets, weights, 1e-3, 64)[0] * 64.0
    assert total.item() == pytest.approx(expected.item(), rel=1e-2)
    theirs = torch.autograd.grad(expected, doubles)
    for mine, its in zip(torch.autograd.grad(total, halves), theirs, strict=True):
        assert mine.dtype == dtype
        assert (mine - its).norm() < 0.02 * its.norm()


def test_a_frozen_table_costs_no_gradient_and_changes_none_of_the_states() -> None:
    hidden, table, targets, weights = inputs()
    (expected,) = torch.autograd.grad(token_losses(hidden, table, targets, weights, 0.1)[0], hidden)
    total, *_ = token_losses(hidden, table.detach(), targets, weights, 0.1)
    assert total.grad_fn.saved_tensors[1] is None
    assert torch.equal(torch.autograd.grad(total, hidden)[0], expected)
