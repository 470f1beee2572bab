"""The exact optimum of the variational step, and what is measured by it."""

from dataclasses import dataclass

import pytest
import torch

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.likelihood import observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.variational import Context, context, initialise, objective, refine
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.oracle import exact_objective, exact_optimum
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.super_resolution import SuperResolution

B, SHAPE = 4, (2, 4, 4)
CPU = torch.device("cpu")


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


OPERATORS: dict[str, LinearOperator] = {
    "masks": Inpainting((draw(B, 1, 4, 4, seed=0) > 0).float()),
    "sr": SuperResolution(2),
    "blur": Blur(torch.full((3, 3), 1 / 9), "circular"),
}


def step(name: str) -> tuple[Context, GaussianPrior]:
    prior = GaussianPrior(
        0.3 * draw(*SHAPE, seed=1), 0.1 + draw(*SHAPE, seed=2).square(), SCHEDULES["vp"]
    )
    x = draw(B, *SHAPE, seed=3)
    t = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    likelihood = observe(OPERATORS[name], x, 0.3, Noise(range(B), CPU))
    return context(prior, 0.5 * x, draw(B, *SHAPE, seed=4), t - 0.1, t, likelihood), prior


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_the_mean_of_the_drawn_objective(name: str) -> None:
    c, prior = step(name)
    q = DiagonalGaussian(c.bridge.mu + 0.1, 0.5 * c.bridge.rho)
    draws = torch.stack([objective(q, c, prior, draw(B, *SHAPE, seed=9 + i)) for i in range(3000)])
    error = (draws.double().mean(0) - exact_objective(q, c, prior)).abs()
    assert (error < 4.5 * draws.std(0) / 3000**0.5).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_is_lower_than_the_optimum(name: str) -> None:
    c, prior = step(name)
    best = exact_optimum(c, prior)
    mu, log_rho = best.mu.clone().requires_grad_(), best.rho.log().requires_grad_()
    value = exact_objective(DiagonalGaussian(mu, log_rho.exp()), c, prior)
    for gradient in torch.autograd.grad(value.sum(), (mu, log_rho)):
        assert gradient.abs().max() < 1e-8
    for i in range(20):
        near = DiagonalGaussian(
            best.mu + 0.01 * draw(B, *SHAPE, seed=i),
            best.rho * (0.1 * draw(B, *SHAPE, seed=50 + i)).exp(),
        )
        assert (exact_objective(near, c, prior) > value).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_many_gradient_steps_come_near_it(name: str) -> None:
    c, prior = step(name)
    q = c.bridge
    for i, lr in enumerate((0.1, 0.02, 0.005)):
        q = refine(
            q, c, prior, Noise(range(i, i + B), CPU), num_steps=300, lr=lr, coordinates="whitened"
        )
    values = [exact_objective(p, c, prior) for p in (q, c.bridge, exact_optimum(c, prior))]
    gap = (values[0] - values[2]) / (values[1] - values[2])
    assert (gap >= 0).all()
    assert gap.max() < 0.03


@dataclass(frozen=True, eq=False)
class Fixed:
    """An inference model that always says the same."""

    q: DiagonalGaussian

    def __call__(self, c: Context) -> DiagonalGaussian:
        return self.q


def test_the_safeguard_takes_the_lower_one() -> None:
    """In nearly all draws, where bridge and prediction differ clearly."""
    c, prior = step("masks")
    best = exact_optimum(c, prior)
    better = DiagonalGaussian(best.mu.float(), best.rho.float())
    worse = DiagonalGaussian(c.bridge.mu - (better.mu - c.bridge.mu), c.bridge.rho)
    for predicted, expected in ((better, 1.0), (worse, 0.0)):
        taken = []
        for seed in range(100):
            noise = Noise([100 * seed + i for i in range(B)], CPU)
            start = initialise(c, prior, Fixed(predicted), noise)
            assert start.accepted is not None
            taken.append(start.accepted.float())
        assert (torch.stack(taken).mean(0) - expected).abs().max() < 0.2
