from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.schedule import SCHEDULES, Flow, Schedule
from lavps_cli.models.analytic import GaussianPrior, MixturePrior, operator_matrix

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Mask:
    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask * x


def mean_of_columns(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def mixture(schedule: Schedule = Flow()) -> MixturePrior:  # noqa: B008
    weights = vector(0.1, 0.2, 0.3, 0.4)
    return MixturePrior(0.8 * random(4, 1, 2, 3, seed=1), weights, 0.05, schedule)


@each_schedule
@pytest.mark.parametrize("t", [0.1, 0.6, 1.0])
def test_denoisers_are_the_integrated_posterior_mean(schedule: Schedule, t: float) -> None:
    grid = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    alpha, sigma = schedule.alpha(time(t)), schedule.sigma(time(t))
    xt = vector(-0.4, 0.9, 2.0)
    forward = Normal(alpha * grid, sigma).log_prob(xt[:, None])

    def integrated(log_prior: Tensor) -> Tensor:
        return (torch.softmax(log_prior + forward, 1) * grid).sum(1).view(3, 1, 1, 1)

    gaussian = GaussianPrior(time(0.3).view(1, 1, 1), 0.25, schedule)
    expected = integrated(Normal(0.3, 0.5).log_prob(grid))
    torch.testing.assert_close(gaussian(xt.view(3, 1, 1, 1), time(t)), expected)

    means, weights = vector(-0.6, 0.1, 0.7), vector(0.5, 0.2, 0.3)
    prior = MixturePrior(means.view(3, 1, 1, 1), weights, 0.04, schedule)
    log_prior = (Normal(means, 0.2).log_prob(grid[:, None]) + weights.log()).logsumexp(1)
    torch.testing.assert_close(prior(xt.view(3, 1, 1, 1), time(t)), integrated(log_prior))


@each_schedule
def test_mixture_denoiser_is_tweedies_formula(schedule: Schedule) -> None:
    prior, t = mixture(schedule), time(0.4)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    xt = random(5, 1, 2, 3, seed=2).requires_grad_()
    spread = (alpha**2 * prior.variance + sigma**2).sqrt()
    each = Normal(alpha * prior.means, spread).log_prob(xt[:, None]).sum((2, 3, 4))
    log_density = (each + prior.weights.log()).logsumexp(1)
    (score,) = torch.autograd.grad(log_density.sum(), xt)
    torch.testing.assert_close(prior(xt.detach(), t), ((xt + sigma**2 * score) / alpha).detach())


@each_schedule
def test_mixture_of_one_component_is_the_gaussian(schedule: Schedule) -> None:
    mean, xt = random(1, 1, 2, 3), random(2, 1, 2, 3, seed=1)
    one = MixturePrior(mean, vector(1.0), 0.2, schedule)
    for t in (0.0, 0.3, 1.0):
        expected = GaussianPrior(mean[0], 0.2, schedule)(xt, time(t))
        torch.testing.assert_close(one(xt, time(t)), expected)


@each_schedule
def test_denoisers_at_both_ends(schedule: Schedule) -> None:
    xt = random(2, 1, 2, 3)
    variance = random(1, 2, 3, seed=3).exp()
    for prior in (GaussianPrior(random(1, 2, 3, seed=1), variance, schedule), mixture(schedule)):
        assert isinstance(prior, Denoiser)
        torch.testing.assert_close(prior(xt, time(0.0)), xt)
    gaussian = GaussianPrior(random(1, 2, 3, seed=1), variance, Flow())
    torch.testing.assert_close(gaussian(xt, time(1.0)), gaussian.mean.expand_as(xt))
    mean = (mixture().means * mixture().weights.view(-1, 1, 1, 1)).sum(0)
    torch.testing.assert_close(mixture()(xt, time(1.0)), mean.expand_as(xt))


def test_every_image_may_have_its_own_time_and_precision_is_that_of_the_input() -> None:
    xt, t = random(2, 1, 2, 3), vector(0.2, 1.0)
    for prior in (GaussianPrior(random(1, 2, 3, seed=1), 0.3, Flow()), mixture()):
        together = prior(xt, t)
        for i in range(2):
            torch.testing.assert_close(together[i : i + 1], prior(xt[i : i + 1], t[i]))
        assert prior(xt.float(), t).dtype == torch.float32


def test_the_matrix_of_an_operator_is_the_operator() -> None:
    x = random(2, 2, 2, 3)
    for A in (mean_of_columns, Mask(random(1, 2, 3, seed=1))):
        matrix = operator_matrix(A, (2, 2, 3))
        expected = A(x).flatten(1)
        assert matrix.shape == (expected.shape[1], 12)
        torch.testing.assert_close(x.flatten(1) @ matrix.T, expected)


def test_gaussian_posterior_is_that_of_the_information_form() -> None:
    mean, variance = random(2, 2, 3), random(2, 2, 3, seed=1).exp()
    y = random(1, 2, 2, 1, seed=2)
    posterior = GaussianPrior(mean, variance, Flow()).posterior(Likelihood(y, mean_of_columns, 0.3))
    matrix = torch.zeros(4, 12, dtype=torch.float64)
    for i in range(4):
        matrix[i, 3 * i : 3 * i + 3] = 1 / 3
    precision = (1 / variance.flatten()).diag() + matrix.T @ matrix / 0.3**2
    pull = (mean / variance).flatten() + matrix.T @ y.flatten() / 0.3**2
    torch.testing.assert_close(posterior.covariance, precision.inverse())
    torch.testing.assert_close(posterior.mean.flatten(), precision.inverse() @ pull)


def test_mixture_posterior_is_the_integrated_one() -> None:
    axis = torch.linspace(-2.5, 2.5, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    means = vector(-0.8, -0.5, 0.2, 0.4, 0.9, -0.7).view(3, 1, 1, 2)
    prior = MixturePrior(means, vector(0.2, 0.3, 0.5), 0.03, Flow())
    y = vector(0.1).view(1, 1, 1, 1)
    posterior = prior.posterior(Likelihood(y, mean_of_columns, 0.15))
    each = Normal(means.flatten(1), 0.03**0.5).log_prob(grid[:, None]).sum(2)
    log_joint = (
        each + prior.weights.log() + Normal(grid.mean(1), 0.15).log_prob(y.flatten())[:, None]
    )
    density = torch.softmax(log_joint.flatten(), 0).view_as(log_joint)
    torch.testing.assert_close(posterior.weights, density.sum(0))
    for k in range(3):
        share = (density[:, k] / density[:, k].sum())[:, None]
        mean = (share * grid).sum(0)
        torch.testing.assert_close(posterior.means[k].flatten(), mean)
        centred = grid - mean
        torch.testing.assert_close(posterior.covariance, centred.T @ (share * centred))


def test_an_observation_of_nothing_leaves_the_prior() -> None:
    nothing = Likelihood(torch.zeros(1, 1, 2, 3).double(), Mask(torch.zeros(1, 2, 3)), 0.1)
    prior = mixture()
    posterior = prior.posterior(nothing)
    torch.testing.assert_close(posterior.weights, prior.weights)
    torch.testing.assert_close(posterior.means, prior.means)
    torch.testing.assert_close(posterior.covariance, 0.05 * torch.eye(6).double())


def test_worked_example() -> None:
    # m 0.3, v 0.25, sigma_y 0.3: each observed pixel has gain 0.25 / (0.25 + 0.09).
    y = vector(0.8, -0.5, 0.0, 0.0).view(1, 1, 2, 2)
    likelihood = Likelihood(y, Mask(vector(1, 1, 0, 0).view(1, 2, 2)), 0.3)
    posterior = GaussianPrior(torch.full((1, 2, 2), 0.3).double(), 0.25, Flow()).posterior(
        likelihood
    )
    expected = vector(0.3 + 0.5 * 25 / 34, 0.3 - 0.8 * 25 / 34, 0.3, 0.3)
    torch.testing.assert_close(posterior.mean.flatten(), expected)
    torch.testing.assert_close(
        posterior.covariance.diag(), vector(0.25 * 9 / 34, 0.25 * 9 / 34, 0.25, 0.25)
    )


def test_samples_have_the_moments_of_the_posterior() -> None:
    y = random(1, 1, 2, 1, seed=2)
    likelihood = Likelihood(y, mean_of_columns, 0.2)
    gaussian = GaussianPrior(random(1, 2, 3), random(1, 2, 3, seed=1).exp(), Flow())
    exact = gaussian.posterior(likelihood)
    n = 20_000
    x = exact.sample(n, torch.Generator().manual_seed(0)).flatten(1)
    deviation = exact.covariance.diag().sqrt()
    assert ((x.mean(0) - exact.mean.flatten()).abs() < 5 * deviation / n**0.5).all()
    error = (x.T.cov() - exact.covariance).abs()
    assert (error < 5 * 2**0.5 * torch.outer(deviation, deviation) / n**0.5).all()


def test_samples_of_a_mixture_meet_its_weights_and_components() -> None:
    means = 3 * random(4, 1, 2, 3, seed=1)
    prior = MixturePrior(means, vector(0.1, 0.2, 0.3, 0.4), 0.05, Flow())
    nothing = Likelihood(torch.zeros(1, 1, 2, 3).double(), Mask(torch.zeros(1, 2, 3)), 0.1)
    n = 20_000
    x = prior.posterior(nothing).sample(n, torch.Generator().manual_seed(0)).flatten(1)
    nearest = torch.cdist(x, means.flatten(1)).argmin(1)
    for k in range(4):
        share = (nearest == k).double().mean()
        p = prior.weights[k]
        assert (share - p).abs() < 5 * (p * (1 - p) / n).sqrt()
        own = x[nearest == k]
        deviation = (0.05 / len(own)) ** 0.5
        assert ((own.mean(0) - means[k].flatten()).abs() < 5 * deviation).all()
        assert ((own.var(0) - 0.05).abs() < 5 * 0.05 * (2 / len(own)) ** 0.5).all()


def test_samples_of_a_singular_posterior_are_finite() -> None:
    likelihood = Likelihood(random(1, 1, 2, 1), mean_of_columns, 1e-9)
    posterior = GaussianPrior(random(1, 2, 3), 1.0, Flow()).posterior(likelihood)
    x = posterior.sample(100, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        mean_of_columns(x), likelihood.y.expand(100, 1, 2, 1), rtol=0, atol=1e-6
    )


def test_log_evidence_weighs_the_components() -> None:
    prior, y = mixture(), random(1, 1, 2, 1, seed=5)
    matrix = operator_matrix(mean_of_columns, (1, 2, 3))
    spread = 0.05 * matrix @ matrix.T + 0.2**2 * torch.eye(2)
    evidence = MultivariateNormal(prior.means.flatten(1) @ matrix.T, spread).log_prob(y.flatten())
    expected = torch.softmax(evidence + prior.weights.log(), 0)
    weights = prior.posterior(Likelihood(y, mean_of_columns, 0.2)).weights
    torch.testing.assert_close(weights, expected)
