"""Gaussian and mixture priors whose denoiser and, for linear operators, posterior are exact."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import Operator
from lavps_cli.core.schedule import Schedule, over, spread
from lavps_cli.core.types import Image, Time


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """N(mean, covariance) of one picture; the covariance is that of its flattened pixels."""

    mean: Float[Tensor, " c h w"]
    covariance: Float[Tensor, " d d"]

    def sample(self, count: int, generator: Generator) -> Image:
        return self.mean + _draw(self.covariance, count, generator).view(-1, *self.mean.shape)


@dataclass(frozen=True, eq=False)
class MixturePosterior:
    """sum_k weights_k N(means_k, covariance) of one picture."""

    weights: Float[Tensor, " k"]
    means: Float[Tensor, " k c h w"]
    covariance: Float[Tensor, " d d"]

    def sample(self, count: int, generator: Generator) -> Image:
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        spread = _draw(self.covariance, count, generator)
        return self.means[component] + spread.view(-1, *self.means.shape[1:])


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """The denoiser of N(mean, diag variance)."""

    mean: Float[Tensor, " c h w"]
    variance: Float[Tensor, " c h w"] | float
    schedule: Schedule

    def __call__(self, xt: Image, t: Time) -> Image:
        alpha, sigma = over(self.schedule.alpha(t), xt), over(self.schedule.sigma(t), xt)
        mean = self.mean.to(xt)
        variance = torch.as_tensor(self.variance).to(xt)
        return (sigma**2 * mean + alpha * variance * xt) / (sigma**2 + alpha**2 * variance)

    def posterior(self, likelihood: Likelihood) -> GaussianPosterior:
        """Return the posterior of one picture, for a linear operator, in float64."""
        variance = torch.as_tensor(self.variance, dtype=torch.float64)
        means, covariance, _ = _condition(self.mean[None], variance, likelihood)
        return GaussianPosterior(means[0], covariance)


@dataclass(frozen=True, eq=False)
class MixturePrior:
    """The denoiser of sum_k weights_k N(means_k, variance I)."""

    means: Float[Tensor, " k c h w"]
    weights: Float[Tensor, " k"]
    variance: float
    schedule: Schedule

    def __call__(self, xt: Image, t: Time) -> Image:
        one = xt[:, :1, :1, :1]
        alpha, sigma = spread(self.schedule.alpha(t), one), spread(self.schedule.sigma(t), one)
        means, weights = self.means.to(xt), self.weights.to(xt)
        total = sigma**2 + alpha**2 * self.variance
        flat = means.flatten(1)
        fit = (alpha / total * xt).flatten(1) @ flat.T
        norm = 0.5 * (alpha**2 / total).flatten(-3) * flat.square().sum(1)
        mean = torch.softmax(weights.log() + fit - norm, -1) @ flat
        return (sigma**2 * mean.view_as(xt) + alpha * self.variance * xt) / total

    def posterior(self, likelihood: Likelihood) -> MixturePosterior:
        """Return the posterior of one picture, for a linear operator, in float64."""
        variance = torch.tensor(self.variance, dtype=torch.float64)
        means, covariance, log_evidence = _condition(self.means, variance, likelihood)
        weights = torch.softmax(self.weights.double().log() + log_evidence, 0)
        return MixturePosterior(weights, means, covariance)


def operator_matrix(A: Operator, shape: tuple[int, ...]) -> Float[Tensor, " m d"]:
    """Return the matrix of a linear operator on flattened pictures (c, h, w), in float64."""
    basis = torch.eye(torch.Size(shape).numel(), dtype=torch.float64)
    return A(basis.view(1, -1, *shape))[0].flatten(1).T


def _condition(
    means: Float[Tensor, " k c h w"],
    variance: Float[Tensor, "..."],
    likelihood: Likelihood,
) -> tuple[Float[Tensor, " k c h w"], Float[Tensor, " d d"], Float[Tensor, " k"]]:
    """Return the means, the covariance and the log evidences of N(means_k, diag variance) given y.

    The evidences lack a constant that is the same for all.
    """
    matrix = operator_matrix(likelihood.A, tuple(means.shape[1:]))
    flat = means.double().flatten(1)
    spread = variance.double().expand(means.shape[1:]).flatten()
    innovation = (
        matrix * spread @ matrix.T + likelihood.sigma_y**2 * torch.eye(len(matrix)).double()
    )
    gain = torch.linalg.solve(innovation, matrix * spread).T
    residual = likelihood.y.double().flatten() - flat @ matrix.T
    covariance = spread.diag() - gain @ matrix * spread
    solved = torch.linalg.solve(innovation, residual.T).T
    log_evidence = -0.5 * (residual * solved).sum(1)
    return (flat + residual @ gain.T).view_as(means), covariance, log_evidence


def _draw(
    covariance: Float[Tensor, " d d"], count: int, generator: Generator
) -> Float[Tensor, " n d"]:
    """Return `count` draws of N(0, covariance); the covariance may be singular."""
    values, vectors = torch.linalg.eigh(covariance)
    w = torch.randn(count, len(values), generator=generator, dtype=covariance.dtype)
    return w * values.clamp_min(0).sqrt() @ vectors.T
