from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from lavps_cli.core.likelihood import Likelihood, observe, observe_photons, poisson_excess
from lavps_cli.core.noise import Noise
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import Inpainting, centre_mask

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Mask:
    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask.to(x) * x

    def measured(self, y: Tensor) -> Tensor:
        return self.mask.to(y).expand_as(y)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_of_columns(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def test_log_prob_is_that_of_a_normal_up_to_a_constant() -> None:
    y = random(2, 1, 3, 1)
    likelihood = Likelihood(y, mean_of_columns, 0.3)
    a, b = random(2, 1, 3, 4, seed=1), random(2, 1, 3, 4, seed=2)

    def naive(x: Tensor) -> Tensor:
        return Normal(mean_of_columns(x), 0.3).log_prob(y).sum((1, 2, 3))

    difference = likelihood.log_prob(a) - likelihood.log_prob(b)
    torch.testing.assert_close(difference, naive(a) - naive(b))


def test_log_prob_is_largest_at_an_exact_fit() -> None:
    x = random(2, 1, 3, 4)
    likelihood = Likelihood(mean_of_columns(x), mean_of_columns, 0.3)
    assert torch.equal(likelihood.log_prob(x), torch.zeros(2, dtype=torch.float64))
    assert (likelihood.log_prob(x + 0.1) < 0).all()


def test_observation_noise_has_the_stated_deviation() -> None:
    x = random(1, 1, 100, 100)
    likelihood = observe(Mask(torch.ones(1, 100, 100)), x, 0.25, Noise([0], CPU))
    residual = likelihood.y - x
    assert likelihood.sigma_y == 0.25
    assert residual.mean().abs() < 5 * 0.25 / 100
    assert residual.std().item() == pytest.approx(0.25, rel=5 / 2**0.5 / 100)


def test_what_is_not_measured_is_exactly_zero() -> None:
    mask = (random(2, 1, 8, 8) > 0).double()
    likelihood = observe(Mask(mask), random(2, 3, 8, 8, seed=1), 0.25, Noise([0, 1], CPU))
    hidden = (mask == 0).expand_as(likelihood.y)
    assert (likelihood.y[hidden] == 0).all()
    assert (likelihood.y[~hidden] != 0).all()


def test_the_observation_of_an_image_depends_on_its_own_seed_only() -> None:
    x = random(2, 1, 4, 4)
    both = observe(mean_of_columns, x, 0.1, Noise([3, 4], CPU))
    alone = observe(mean_of_columns, x[1:], 0.1, Noise([4], CPU))
    assert torch.equal(both.y[1:], alone.y)


def test_shot_noise_follows_the_law_of_poisson() -> None:
    counts = torch.tensor([0.0, 1.0, 7.0, 40.0], dtype=torch.float64)
    rate = torch.tensor([0.6, 2.0, 9.0, 31.0], dtype=torch.float64)

    def log_prob(rate: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Poisson(rate).log_prob(counts)

    best = counts.clamp_min(0.5)
    torch.testing.assert_close(poisson_excess(counts, rate), log_prob(rate) - log_prob(best))


def test_pictures_darker_than_black_are_led_back() -> None:
    counts = torch.tensor([0.0, 3.0], dtype=torch.float64)
    rate = torch.full((2,), -4.0, dtype=torch.float64).requires_grad_()
    poisson_excess(counts, rate).sum().backward()
    assert rate.grad is not None
    assert (rate.grad > 0).all()


def test_photons_are_counted_and_missing_pixels_stay_zero() -> None:
    A = Inpainting(centre_mask(64, 64))
    x = torch.full((1, 3, 64, 64), 0.5, dtype=torch.float64)
    found = observe_photons(A, x, 20.0, Noise([0], torch.device("cpu")))
    known = A.measured(found.y) > 0
    assert (found.y[~known] == 0).all()
    counts = 10 * (found.y[known] + 1)
    torch.testing.assert_close(counts, counts.round())
    assert float(counts.mean()) == pytest.approx(15, rel=0.02)
    assert float(counts.var()) == pytest.approx(15, rel=0.06)
    assert found.sigma_y == pytest.approx(float((found.y - A(x))[known].std()), rel=0.05)


def test_many_photons_are_normal_noise() -> None:
    x = torch.full((1, 3, 8, 8), 0.2, dtype=torch.float64)
    peak = 1e6
    found = observe_photons(Denoising(), x, peak, Noise([0], torch.device("cpu")))
    normal = replace(found, peak=None)
    near = x + 0.001
    difference = found.log_prob(near) - found.log_prob(x)
    torch.testing.assert_close(
        difference, normal.log_prob(near) - normal.log_prob(x), rtol=0.01, atol=0.0
    )
