"""The zero-shot samplers on Gaussian mixtures, whose posterior is known exactly.

    python benchmarks/gaussian_mixture.py [--d 8] [--problems 20] [--samples 1000] [--methods ...]

25 Gaussians in R^d with covariance I, their means (8 i, 8 j), i, j in -2..2, repeated d / 2
times; weights are squared normal draws, normalised, new for each problem. y = A x + sigma_y z with
d_y rows of A, its singular values uniform in [0, 1], and sigma_y uniform below the largest of them
(the construction of Cardoso et al. 2023). SW1 is the mean over 1000 random directions of the
one-dimensional W1 between samples and as many exact ones; "floor" is that between two exact sets.
Also told: the total variation of the weights of the components, and how often intervals of 90 % of
the samples hold the x that y was made of, coordinate by coordinate.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.bench.uncertainty import coverage
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import Gain
from lavps_cli.core.schedule import VariancePreserving
from lavps_cli.models.analytic import MixturePrior
from lavps_cli.samplers.dps import DpsOptions, dps
from lavps_cli.samplers.lavps import LavpsOptions, lavps

CPU = torch.device("cpu")
DIRECTIONS = 1000


@dataclass(frozen=True, eq=False)
class Matrix:
    """A linear operator on pictures of one row."""

    A: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.A.T

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.A

    def ridge(self, y: Tensor, lam: Tensor | float) -> Tensor:
        u, s, vt = torch.linalg.svd(self.A, full_matrices=False)
        return (y @ u) * (s / (s**2 + lam)) @ vt

    def spectral(self, gain: Gain, x: Tensor) -> Tensor:
        _, s, vt = torch.linalg.svd(self.A, full_matrices=False)
        along = x @ vt.T
        unseen = gain(torch.zeros(1, dtype=x.dtype)).item()
        return unseen * (x - along @ vt) + (gain(s) * along) @ vt


@dataclass(frozen=True, eq=False)
class Problem:
    """One observation, with exact samples of its posterior."""

    prior: MixturePrior
    likelihood: Likelihood
    exact: Tensor
    again: Tensor
    """Two sets of exact samples."""
    weights: Tensor
    unconditional: Tensor
    x: Tensor
    """What y was made of."""


def problem(d: int, dim_y: int, seed: int, samples: int) -> Problem:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    pairs = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3)).double() * 8
    means = pairs.repeat(1, d // 2).view(25, 1, 1, d)
    weights = normal(25) ** 2
    weights = weights / weights.sum()
    u, _, vt = torch.linalg.svd(normal(dim_y, d), full_matrices=False)
    sizes = torch.rand(dim_y, generator=g, dtype=torch.float64).sort(descending=True).values
    A = Matrix((u * sizes) @ vt)
    sigma_y = float(torch.rand((), generator=g) * sizes[0])
    prior = MixturePrior(means, weights, 1.0, VariancePreserving())

    def draw(count: int) -> Tensor:
        which = torch.multinomial(weights, count, replacement=True, generator=g)
        return means[which] + normal(count, 1, 1, d)

    x = draw(1)
    clean = A(x)
    likelihood = Likelihood(clean + sigma_y * normal(*clean.shape), A, sigma_y)
    posterior = prior.posterior(likelihood)
    return Problem(
        prior, likelihood, posterior.sample(samples, g), posterior.sample(samples, g),
        posterior.weights, draw(samples), x[0],
    )  # fmt: skip


def sliced(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Return the mean one-dimensional W1 over random directions."""
    d = a.shape[-1]
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(d, DIRECTIONS, generator=g, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    x, y = (s.reshape(-1, d) @ directions for s in (a, b))
    return float((x.sort(0).values - y.sort(0).values).abs().mean())


def occupancy(x: Tensor, means: Tensor) -> Tensor:
    """Return which share of the samples is nearest to each component."""
    nearest = torch.cdist(x.flatten(1), means.flatten(1)).argmin(1)
    return torch.bincount(nearest, minlength=len(means)).double() / len(x)


def mgdm(lr: float) -> Callable[[Problem, int], Tensor]:
    options = LavpsOptions(
        num_steps=100, grad_steps_start=5, grad_steps_end=20, switch_ratio=0.7, lr=lr,
        grid="vp", coordinates="raw",
    )  # fmt: skip

    def run(problem: Problem, count: int) -> Tensor:
        return _sampled(lavps, problem, options, count)

    return run


def dps_at(zeta: float) -> Callable[[Problem, int], Tensor]:
    options = DpsOptions(num_steps=100, zeta=zeta)

    def run(problem: Problem, count: int) -> Tensor:
        return _sampled(dps, problem, options, count)

    return run


def of_catalogue(name: str, **settings: float) -> Callable[[Problem, int], Tensor]:
    entry = catalog.sampler(name)
    options, sampler = catalog.resolve(entry.options)(**settings), catalog.resolve(entry.function)

    def run(problem: Problem, count: int) -> Tensor:
        return _sampled(sampler, problem, options, count)

    return run


def _sampled(sampler: Callable[..., Tensor], problem: Problem, options: object, n: int) -> Tensor:
    y = problem.likelihood.y.expand(n, *problem.likelihood.y.shape[1:])
    seen = Likelihood(y, problem.likelihood.A, problem.likelihood.sigma_y)
    shape = (n, *problem.exact.shape[1:])
    return sampler(problem.prior, seen, options, shape=shape, noise=Noise(range(n), CPU))


METHODS: dict[str, Callable[[Problem, int], Tensor]] = {
    "floor": lambda problem, count: problem.again,
    "prior": lambda problem, count: problem.unconditional,
    "DPS zeta 0.1": dps_at(0.1),
    "DPS zeta 0.2": dps_at(0.2),
    "MGDM lr 0.1": mgdm(0.1),
    "MGDM lr 0.3": mgdm(0.3),
    "DDRM": of_catalogue("ddrm", num_steps=100),
    "DDNM+": of_catalogue("ddnm", num_steps=100),
    "PiGDM": of_catalogue("pigdm", num_steps=100),
    "DiffPIR": of_catalogue("diffpir", num_steps=100),
    "DAPS": of_catalogue("daps", num_steps=200),
    "RED-diff": of_catalogue("reddiff", num_steps=1000),
    "MGPS lr 0.1": of_catalogue("mgps", num_steps=300, lr=0.1, second_fit=2.0),
    "LATINO untrained": of_catalogue("latino", num_steps=30),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d", type=int, default=8)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--methods", default=",".join(METHODS))
    given = parser.parse_args()
    print(f"d = {given.d}, {given.problems} problems, {given.samples} samples\n")
    print("| d_y | method | SW1, mean +- 1.96 se | TV of the weights | coverage | s a problem |")
    print("|---|---|---|---|---|---|")
    for dim_y in (1, 2, 4):
        problems = [
            problem(given.d, dim_y, 1000 * dim_y + i, given.samples) for i in range(given.problems)
        ]
        for name in given.methods.split(","):
            method = METHODS[name]
            far, off, held, began = [], [], [], time.perf_counter()
            for each in problems:
                x = method(each, given.samples)
                far.append(sliced(x, each.exact))
                shares = occupancy(x, each.prior.means)
                off.append(float((shares - each.weights).abs().sum() / 2))
                held.append(coverage(x, each.x))
            seconds = (time.perf_counter() - began) / len(problems)
            half = 1.96 * np.std(far, ddof=1) / len(far) ** 0.5
            print(f"| {dim_y} | {name} | {np.mean(far):.2f} +- {half:.2f} | {np.mean(off):.2f} | "
                  f"{np.mean(held):.2f} | "
                  f"{seconds:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
