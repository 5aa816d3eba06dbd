"""What holds for all six codebooks, and what each alone does."""

import math
from itertools import pairwise

import pytest
import torch

from cogview.errors import UsageError
from cogview.image.config import CodebookConfig
from cogview.image.quantizers.build import build_quantizer
from cogview.image.quantizers.codebook import Codebook
from cogview.image.quantizers.gumbel import gumbel_noise
from cogview.image.quantizers.nearest_code import as_rows
from cogview.image.quantizers.protocol import Quantizer

METHODS = ("nearest_neighbour", "gumbel", "moving_average", "fixed", "normalised", "projected")
WITHOUT_DRAWS = tuple(method for method in METHODS if method not in ("gumbel", "projected"))


def codebook_of(method: str, vectors: torch.Tensor | None = None, **changes) -> Codebook:
    """Return a codebook, laid into vectors if some are given."""
    changes = {"num_codes": 16, "code_size": 4, "revival_every_steps": 0} | changes
    torch.manual_seed(0)
    quantizer = build_quantizer(CodebookConfig(codebook=method, **changes))
    if vectors is not None:
        quantizer.update(vectors, quantizer.nearest(vectors), step=0)
    return quantizer


def grids(seed: int, batch: int = 4, side: int = 6, width: int = 4) -> torch.Tensor:
    return torch.randn(batch, width, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", METHODS)
def test_each_is_a_quantizer_that_starts_in_the_vectors_or_at_random(method):
    vectors = grids(0)
    assert isinstance(codebook_of(method), Quantizer)
    laid = codebook_of(method, vectors)
    naive = codebook_of(method, codebook_initialisation="random")
    assert laid.is_initialised
    assert naive.is_initialised
    error_of = {
        name: (laid._prepared(vectors) - each.look_up(each.nearest(vectors))).square().mean()
        for name, each in (("laid", laid), ("naive", naive))
    }
    assert error_of["laid"] < 0.7 * error_of["naive"]


@pytest.mark.parametrize("method", METHODS)
def test_codes_are_the_nearest_entries_and_are_looked_up_in_their_place(method):
    vectors = grids(1)
    quantizer = codebook_of(method, vectors)
    entries = quantizer.look_up(torch.arange(16).view(1, 4, 4)).permute(0, 2, 3, 1).reshape(16, 4)
    rows = as_rows(quantizer._prepared(vectors))
    codes = quantizer.nearest(vectors)
    assert torch.equal(codes.flatten(), torch.cdist(rows, entries).argmin(1))
    assert torch.equal(as_rows(quantizer.look_up(codes)), entries[codes.flatten()])


@pytest.mark.parametrize("method", METHODS)
def test_vectors_pass_unchanged_until_the_codebook_starts(method):
    vectors = grids(2).requires_grad_()
    quantizer = codebook_of(method, codebook_start_step=3)
    quantized = quantizer.quantize(vectors)
    torch.testing.assert_close(quantized.vectors, quantizer._prepared(vectors))
    assert quantized.loss == 0
    quantizer.update(vectors, quantized.codes, 2)
    assert not quantizer.is_initialised
    quantizer.update(vectors, quantized.codes, 3)
    assert quantizer.is_initialised
    assert not torch.allclose(quantizer.quantize(vectors).vectors, quantizer._prepared(vectors))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_everything_learnt_is_in_the_state(method):
    def run(quantizer: Codebook, steps: range) -> None:
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1) if list(quantizer.parameters()) else None
        for step in steps:
            vectors = grids(step)
            torch.manual_seed(step)
            quantized = quantizer.quantize(vectors)
            if optimizer:
                optimizer.zero_grad()
                (quantized.vectors.square().sum() + quantized.loss).backward()
                optimizer.step()
            quantizer.update(vectors, quantized.codes, step)

    options = {"revival_every_steps": 2, "revival_threshold": 0.5, "gumbel_annealing_steps": 6}
    whole, first, second = (codebook_of(method, **options) for _ in range(3))
    run(whole, range(8))
    run(first, range(4))
    second.load_state_dict(first.state_dict())
    run(second, range(4, 8))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fixed"])
def test_unused_codes_are_revived(method):
    vectors = grids(7)
    quantizer = codebook_of(method, vectors, revival_every_steps=1)
    with torch.no_grad():
        quantizer.embed[5] = -1000.0
        quantizer.cluster_size[5] = 0.0
    assert quantizer.update(vectors, quantizer.nearest(vectors), step=1)["usage"] == 1.0
    assert (as_rows(quantizer._prepared(vectors)) == quantizer.embed[5]).all(1).any()


def test_a_fixed_codebook_does_not_move():
    vectors = grids(3)
    quantizer = codebook_of("fixed", vectors, revival_every_steps=1, revival_threshold=0.9)
    assert not list(quantizer.parameters())
    before = quantizer.embed.clone()
    for step in range(1, 6):
        other = grids(10 + step) * step
        quantized = quantizer.quantize(other.requires_grad_())
        (quantized.vectors.sum() + quantized.loss).backward()
        quantizer.update(other, quantized.codes, step)
    assert torch.equal(quantizer.embed, before)
    assert quantizer.cluster_size.std() > 0, "what is used is counted all the same"


@pytest.mark.parametrize("method", WITHOUT_DRAWS)
def test_the_gradient_is_that_of_the_vectors_as_prepared(method):
    """Straight through: d loss / d vectors is what it would be had nothing been quantized."""
    vectors = grids(4).double().float().requires_grad_()
    quantizer = codebook_of(method, vectors.detach())
    weights = grids(5)
    (through,) = torch.autograd.grad((quantizer.quantize(vectors).vectors * weights).sum(), vectors)
    (plain,) = torch.autograd.grad((quantizer._prepared(vectors) * weights).sum(), vectors)
    torch.testing.assert_close(through, plain)


@pytest.mark.parametrize("method", WITHOUT_DRAWS)
def test_losses_have_the_gradients_that_finite_differences_find(method):
    """Where no code changes, the losses are smooth in the codebook and in the vectors."""
    vectors = grids(6, batch=1, side=3).requires_grad_()
    quantizer = codebook_of(method, vectors.detach(), num_codes=4)
    wanted = {"vectors": vectors} | dict(quantizer.named_parameters())
    loss = quantizer.quantize(vectors).loss
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    weights = quantizer.config
    step = 1e-2
    for (name, tensor), gradient in zip(wanted.items(), gradients, strict=True):
        # The commitment loss holds the codebook still, the codebook loss the vectors.
        weight = weights.commitment_weight if name == "vectors" else weights.codebook_weight
        for index in range(0, tensor.numel(), 5):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    tensor.view(-1)[index] += sign * step
                    prepared = quantizer._prepared(vectors).double()
                    found = quantizer.look_up(quantizer.nearest(vectors)).double()
                    values.append(weight * float((prepared - found).square().mean()))
                    tensor.view(-1)[index] -= sign * step
            slope = (values[0] - values[1]) / (2 * step)
            assert float(gradient.view(-1)[index]) == pytest.approx(slope, abs=2e-3)


def test_gumbel_noise_has_its_distribution():
    torch.manual_seed(0)
    noise = gumbel_noise(torch.empty(400, 500))
    assert float(noise.mean()) == pytest.approx(0.57722, abs=0.01)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.03)
    for value in (-1.0, 0.0, 2.0):
        assert float((noise < value).float().mean()) == pytest.approx(math.exp(-math.exp(-value)), abs=0.005)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gumbel_draws_each_code_as_often_as_its_probability_says(temperature):
    quantizer = codebook_of(
        "gumbel",
        codebook_initialisation="random",
        num_codes=6,
        gumbel_temperatures=(temperature, temperature),
    )
    vector = torch.tensor([0.3, -0.2, 0.1, 0.5])
    many = vector[None, :, None, None].expand(1, 4, 200, 200)
    torch.manual_seed(1)
    codes = quantizer.quantize(many).codes
    found = torch.bincount(codes.flatten(), minlength=6) / codes.numel()
    distances = (quantizer.embed - vector).square().sum(1)
    expected = torch.softmax(-distances / temperature, 0)
    assert (found - expected).abs().max() < 4 * 0.5 / codes.numel() ** 0.5


def test_gumbel_decodes_the_code_drawn_with_the_gradient_of_the_soft_mean(monkeypatch):
    vectors = grids(8, batch=2, side=3).requires_grad_()
    quantizer = codebook_of("gumbel", vectors.detach())
    torch.manual_seed(2)
    quantized = quantizer.quantize(vectors)
    torch.testing.assert_close(quantized.vectors, quantizer.look_up(quantized.codes))
    found = torch.autograd.grad(quantized.vectors.square().sum(), [vectors, quantizer.embed])
    torch.manual_seed(2)
    terms = gumbel_noise(torch.empty(18, 16))
    terms = terms - torch.cdist(as_rows(vectors), quantizer.embed).square() / quantizer.temperature
    assert torch.equal(terms.argmax(1), quantized.codes.flatten())
    soft = torch.softmax(terms, 1) @ quantizer.embed
    weights = 2 * as_rows(quantized.vectors.detach())
    expected = torch.autograd.grad((soft * weights).sum(), [vectors, quantizer.embed])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert found[0].abs().max() > 0
    # In parts, each drawn again in the backward pass from the same noise, the gradient is that of its own draw.
    monkeypatch.setattr("cogview.image.quantizers.nearest_code.DISTANCES_AT_A_TIME", 16 * 5)
    in_parts = quantizer.quantize(vectors)
    torch.testing.assert_close(in_parts.vectors, quantizer.look_up(in_parts.codes))
    (gradient,) = torch.autograd.grad(in_parts.vectors.square().sum(), vectors)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_gumbel_cools_geometrically_and_ends_at_the_nearest_code():
    vectors = grids(9)
    quantizer = codebook_of("gumbel", gumbel_temperatures=(4.0, 1e-4), gumbel_annealing_steps=4)
    seen = [
        float(quantizer.update(vectors, quantizer.nearest(vectors), step)["temperature"]) for step in range(6)
    ]
    assert seen[0] == 4.0
    assert [b / a for a, b in pairwise(seen[:5])] == pytest.approx([(1e-4 / 4) ** 0.25] * 4, rel=1e-3)
    assert seen[5] == pytest.approx(1e-4)
    share = (quantizer.quantize(vectors).codes == quantizer.nearest(vectors)).float().mean()
    assert share > 0.99


def test_projected_codes_are_the_largest_logits_and_stay_so_when_loaded():
    vectors = grids(12)
    quantizer = codebook_of("projected", vectors)
    with torch.no_grad():
        quantizer.projection.weight.normal_()
        quantizer.projection.bias.normal_()
    weight, bias = quantizer.projection.weight, quantizer.projection.bias
    expected = torch.einsum("bdrs,vd->brsv", vectors, weight) + bias
    codes = quantizer.nearest(vectors)
    assert torch.equal(codes, expected.argmax(3))
    distances = torch.cdist(as_rows(vectors), quantizer.embed)
    assert (distances.argmin(1) != codes.flatten()).any(), "they are not the nearest"
    loaded = codebook_of("projected")
    loaded.load_state_dict(quantizer.state_dict())
    loaded.mark_initialised()
    assert torch.equal(loaded.nearest(vectors), codes)


def test_the_projection_learns_from_what_the_decoder_wants():
    vectors = grids(13)
    quantizer = codebook_of("projected", vectors, gumbel_temperatures=(1.0, 1.0))
    torch.manual_seed(4)
    wanted = [vectors.requires_grad_(), quantizer.embed, quantizer.projection.weight]
    gradients = torch.autograd.grad(quantizer.quantize(vectors).vectors.square().sum(), wanted)
    assert all(bool(each.isfinite().all()) and float(each.abs().max()) > 0 for each in gradients)


def test_normalised_codes_do_not_see_lengths():
    vectors = grids(10)
    quantizer = codebook_of("normalised", vectors)
    assert torch.equal(quantizer.nearest(vectors), quantizer.nearest(vectors * 7.0))
    entries = as_rows(quantizer.look_up(torch.arange(16).view(1, 4, 4)))
    torch.testing.assert_close(entries.norm(dim=1), torch.ones(16))


@pytest.mark.parametrize("method", METHODS)
def test_quantizing_is_fp32_under_autocast(method):
    vectors = grids(11)
    quantizer = codebook_of(method, vectors)
    torch.manual_seed(3)
    expected = quantizer.quantize(vectors)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer.quantize(vectors)
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(quantized.vectors, expected.vectors)
    assert quantized.vectors.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gumbel_temperatures": (1.0, 0.0)}, "gumbel_temperatures must be greater than 0"),
        ({"gumbel_annealing_steps": 0}, "gumbel_annealing_steps at least 1"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        CodebookConfig(**changes)
