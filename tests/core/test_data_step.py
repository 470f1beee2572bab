import pytest
import torch
from torch import Tensor

from lavps_cli.core.data_step import data_step
from lavps_cli.core.likelihood import Likelihood, corrupt
from lavps_cli.core.noise import Noise
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import Inpainting, centre_mask

SIGMA_Y, V = 0.1, 0.02


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(*seeds: int) -> Noise:
    return Noise(seeds, torch.device("cpu"))


def problem(A: Denoising | Inpainting, b: int = 2) -> tuple[Tensor, Tensor, Likelihood]:
    """Return pictures, the same with errors of variance V, and their observations."""
    x = normal(b, 3, 64, 64, seed=0)
    y = corrupt(A, A(x), SIGMA_Y, normal(b, 3, 64, 64, seed=1))
    return x, x + V**0.5 * normal(b, 3, 64, 64, seed=2), y


def error(a: Tensor, x: Tensor) -> float:
    return float((a - x).square().mean())


def test_white_errors_become_those_of_the_posterior_mean() -> None:
    x, x0, likelihood = problem(Denoising())
    best = V * SIGMA_Y**2 / (V + SIGMA_Y**2)
    assert error(data_step(x0, likelihood, noise(0, 1)), x) == pytest.approx(best, rel=0.05)


def test_what_is_not_measured_stays() -> None:
    mask = centre_mask(64, 64)
    x, x0, likelihood = problem(Inpainting(mask))
    moved = data_step(x0, likelihood, noise(0, 1))
    hole = mask[0] == 0
    assert torch.equal(moved[..., hole], x0[..., hole])
    assert error(moved[..., ~hole], x[..., ~hole]) < 0.6 * V


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_residual_of_noise_or_less_changes_nothing(share: float) -> None:
    x = normal(1, 3, 64, 64, seed=0)
    y = x + share * SIGMA_Y * normal(1, 3, 64, 64, seed=1)
    likelihood = Likelihood(y, Denoising(), SIGMA_Y)
    assert torch.equal(data_step(x, likelihood, noise(0)), x)


def test_where_nothing_stands_out_of_the_noise_nothing_is_concluded() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    assert torch.equal(data_step(flat, Likelihood(flat + 1, Denoising(), 0.1), noise(0)), flat)


def test_an_image_does_not_depend_on_its_batch() -> None:
    _, x0, likelihood = problem(Denoising())
    both = data_step(x0, likelihood, noise(5, 6))
    alone = Likelihood(likelihood.y[1:], likelihood.A, SIGMA_Y)
    assert torch.equal(data_step(x0[1:], alone, noise(6)), both[1:])
