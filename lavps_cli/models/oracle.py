"""The variational problem of one diffusion step where it is exact: Gaussian prior, linear operator.

The denoiser is affine, D(x_s) = B x_s + b, so that L of equation (16) is known without drawing, and
so is its minimiser among diagonal Gaussians.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.types import PerImage
from lavps_cli.core.variational import Context
from lavps_cli.models.analytic import GaussianPrior


def exact_objective(q: DiagonalGaussian, c: Context, prior: GaussianPrior) -> PerImage:
    """Return L(mu, rho; c), the expectation over w taken exactly, in float64.

    E ||y - A D(mu + sqrt(rho) w)||^2 = ||y - A D(mu)||^2 + sum_i rho_i [(A B)^T A B]_ii.
    """
    matrix, _ = _seen(c, prior)
    q, start = _double(q), _double(c.bridge)
    at_mean = c.likelihood.y.double() - c.likelihood.A(prior(q.mu, c.s))
    spread = (q.rho.flatten(1) * matrix.square().sum(1)).sum(1)
    error = at_mean.square().flatten(1).sum(1) + spread
    return q.kl(start) + 0.5 * error / c.likelihood.sigma_y**2


def exact_optimum(c: Context, prior: GaussianPrior) -> DiagonalGaussian:
    """Return the minimiser of L, in float64.

    1 / rho_i = 1 / s^2 + [M]_ii and mu = (1 / s^2 + M)^-1 (m / s^2 + (A B)^T (y - A b) / sigma_y^2)
    with M = (A B)^T A B / sigma_y^2, for a bridge N(m, s^2).
    """
    matrix, offset = _seen(c, prior)
    start, variance = _double(c.bridge), c.likelihood.sigma_y**2
    precision = 1 / start.rho.flatten(1)
    gram = matrix.mT @ matrix / variance
    rho = 1 / (precision + gram.diagonal(dim1=1, dim2=2))
    residual = (c.likelihood.y.double() - offset).flatten(1)[..., None]
    right = precision[..., None] * start.mu.flatten(1)[..., None] + matrix.mT @ residual / variance
    mu = torch.linalg.solve(gram + torch.diag_embed(precision), right)
    return DiagonalGaussian(mu.view_as(start.mu), rho.view_as(start.rho))


def _double(q: DiagonalGaussian) -> DiagonalGaussian:
    return DiagonalGaussian(q.mu.double(), q.rho.double())


def _seen(c: Context, prior: GaussianPrior) -> tuple[Float[Tensor, " b m d"], Tensor]:
    """Return A B of each picture as a matrix, and A b."""
    x = torch.zeros_like(c.x0, dtype=torch.float64)
    b, d = len(x), x[0].numel()
    at_zero = prior(x, c.s)
    gain = prior(torch.ones_like(x), c.s) - at_zero
    basis = torch.eye(d, dtype=torch.float64).view(1, d, *x.shape[1:])
    columns = c.likelihood.A(basis * gain[:, None])
    return columns.reshape(b, d, -1).mT, c.likelihood.A(at_zero)
