"""The moving-average codebook against its definition."""

import pytest
import torch

from cogview.image.config import VQVAEConfig
from cogview.image.quantizers.initialisation import sample_indices
from cogview.image.quantizers.moving_average import MovingAverageQuantizer
from cogview.image.quantizers.nearest_code import as_rows, nearest_codes


def quantizer_of(**changes) -> MovingAverageQuantizer:
    config = VQVAEConfig(**{"num_codes": 16, "code_size": 4, "revival_every_steps": 0} | changes)
    torch.manual_seed(0)
    return MovingAverageQuantizer(config)


def initialised(vectors: torch.Tensor, **changes) -> MovingAverageQuantizer:
    quantizer = quantizer_of(**changes)
    quantizer.update(vectors, quantizer.nearest(vectors), step=0)
    return quantizer


def grids(seed: int, batch: int = 4, side: int = 6, width: int = 4) -> torch.Tensor:
    return torch.randn(batch, width, side, side, generator=torch.Generator().manual_seed(seed))


def test_nearest_is_the_least_distance_even_when_computed_in_parts(monkeypatch):
    rows, embed = torch.randn(50, 4), torch.randn(7, 4)
    expected = torch.cdist(rows, embed).argmin(1)
    monkeypatch.setattr("cogview.image.quantizers.nearest_code.DISTANCES_AT_A_TIME", 20)
    assert torch.equal(nearest_codes(rows, embed), expected)


def test_codes_keep_their_place_in_the_grid():
    quantizer = quantizer_of()
    codes = torch.randint(0, 16, (3, 5, 2))
    vectors = quantizer.look_up(codes)
    assert vectors.shape == (3, 4, 5, 2)
    assert torch.equal(quantizer.nearest(vectors), codes)
    assert torch.equal(as_rows(vectors), quantizer.embed[codes.flatten()])


def test_gradient_passes_straight_through_and_commitment_pulls_to_the_code():
    vectors = grids(1).requires_grad_()
    quantizer = initialised(vectors.detach())
    quantized = quantizer.quantize(vectors)
    (gradient,) = torch.autograd.grad(quantized.vectors.sum(), vectors)
    assert torch.equal(gradient, torch.ones_like(gradient))
    (pull,) = torch.autograd.grad(quantizer.quantize(vectors).loss, vectors)
    offset = (vectors - quantizer.look_up(quantized.codes)).detach()
    torch.testing.assert_close(pull, 0.25 * 2.0 * offset / vectors.numel())


def test_vectors_pass_unchanged_until_the_codebook_is_laid_into_them():
    quantizer = quantizer_of(codebook_start_step=2)
    vectors = grids(2)
    for step in range(2):
        quantized = quantizer.quantize(vectors)
        assert torch.equal(quantized.vectors, vectors)
        assert quantized.loss == 0
        quantizer.update(vectors, quantized.codes, step)
        assert not quantizer.is_initialised
    quantizer.update(vectors, quantized.codes, 2)
    assert quantizer.is_initialised
    before = (vectors - quantizer_of().quantize(vectors).vectors).square().mean()
    assert before == 0
    error = (vectors - quantizer.look_up(quantizer.nearest(vectors))).square().mean()
    assert error < 0.5 * vectors.square().mean(), "sixteen codes explain more than half of the variance"


def test_update_is_the_moving_average_of_the_definition():
    vectors = grids(3)
    quantizer = initialised(vectors)
    size, average = quantizer.cluster_size.clone(), quantizer.embed_avg.clone()
    codes = quantizer.nearest(vectors)
    quantizer.update(vectors, codes, step=1)
    one_hot = torch.nn.functional.one_hot(codes.flatten(), 16).float()
    size = 0.99 * size + 0.01 * one_hot.sum(0)
    average = 0.99 * average + 0.01 * one_hot.T @ as_rows(vectors)
    smoothed = (size + 1e-5) / (size.sum() + 16 * 1e-5) * size.sum()
    torch.testing.assert_close(quantizer.cluster_size, size)
    torch.testing.assert_close(quantizer.embed_avg, average)
    torch.testing.assert_close(quantizer.embed, average / smoothed[:, None])


def test_codebook_settles_on_the_clusters_of_the_data():
    centres = 5.0 * torch.randn(16, 4, generator=torch.Generator().manual_seed(4))
    choice = torch.randint(0, 16, (8, 6, 6), generator=torch.Generator().manual_seed(5))
    vectors = centres[choice].permute(0, 3, 1, 2) + 0.01 * grids(6, batch=8)
    quantizer = initialised(vectors, revival_every_steps=1, decay=0.5)
    for step in range(1, 60):
        metrics = quantizer.update(vectors, quantizer.nearest(vectors), step)
    error = (vectors - quantizer.look_up(quantizer.nearest(vectors))).abs().max()
    assert error < 0.1
    assert metrics["perplexity"] > 10


def test_unused_codes_are_revived_at_badly_served_vectors_and_used_ones_stay():
    vectors = grids(7)
    quantizer = initialised(vectors, revival_every_steps=3)
    quantizer.embed[5] = 1000.0
    quantizer.embed_avg[5] = 0.0
    quantizer.cluster_size[5] = 0.0
    codes = quantizer.nearest(vectors)
    assert quantizer.update(vectors, codes, step=1)["usage"] < 1.0
    others = torch.arange(16) != 5
    metrics = quantizer.update(vectors, codes, step=2)
    assert metrics["usage"] == 1.0
    assert (as_rows(vectors) == quantizer.embed[5]).all(1).any(), "it lies on one of the encoder's outputs"
    torch.testing.assert_close(
        quantizer.embed[others],
        (quantizer.embed_avg / quantizer.cluster_size[:, None])[others],
        rtol=1e-3,
        atol=1e-3,
    )


def test_all_state_lies_in_buffers_so_a_resumed_quantizer_goes_on_bit_for_bit():
    def run(quantizer: MovingAverageQuantizer, steps: range) -> None:
        for step in steps:
            vectors = grids(step)
            torch.manual_seed(step)
            quantizer.update(vectors, quantizer.quantize(vectors).codes, step)

    whole = quantizer_of(revival_every_steps=2, revival_threshold=0.5)
    run(whole, range(8))
    first = quantizer_of(revival_every_steps=2, revival_threshold=0.5)
    run(first, range(4))
    second = quantizer_of(revival_every_steps=2, revival_threshold=0.5)
    second.load_state_dict(first.state_dict())
    run(second, range(4, 8))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


def test_fewer_vectors_than_codes_still_give_codes_that_differ():
    quantizer = initialised(grids(8, batch=1, side=2))
    assert len(quantizer.embed.unique(dim=0)) == 16
    assert quantizer.embed.isfinite().all()


def test_vectors_that_are_all_equal_do_no_harm():
    vectors = torch.ones(2, 4, 6, 6)
    quantizer = initialised(vectors, revival_every_steps=1)
    for step in range(1, 4):
        metrics = quantizer.update(vectors, quantizer.nearest(vectors), step)
    assert quantizer.embed.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_quantizing_is_fp32_under_autocast(dtype):
    vectors = grids(9)
    quantizer = initialised(vectors)
    expected = quantizer.quantize(vectors)
    with torch.autocast("cpu", dtype):
        quantized = quantizer.quantize(vectors)
    assert quantized.vectors.dtype == torch.float32
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(quantized.vectors, expected.vectors)


def test_weights_that_are_no_numbers_are_drawn_last():
    weights = torch.tensor([torch.nan, 1.0, torch.inf, 0.5, 0.0])
    torch.manual_seed(0)
    for _ in range(50):
        assert set(sample_indices(weights, 2).tolist()) == {1, 3}
    assert sample_indices(torch.full((4,), torch.nan), 4).sort().values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("is_initialised", [False, True])
def test_vectors_of_a_failed_training_end_no_update(value, is_initialised):
    vectors = grids(4)
    quantizer = initialised(vectors, revival_every_steps=1) if is_initialised else quantizer_of()
    quantizer.cluster_size[:8] = 0.0
    quantizer.update(torch.full_like(vectors, value), quantizer.nearest(vectors), step=0)
