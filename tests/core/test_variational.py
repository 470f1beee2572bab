from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Flow
from lavps_cli.core.variational import Context, Coordinates, context, initialise, objective, refine
from lavps_cli.models.analytic import GaussianPrior, MixturePrior

CPU = torch.device("cpu")
S, T = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
SIGMA_Y = 0.2


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask for each image, with leading axes in front of the picture's as they come."""

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask * x


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


GAUSSIAN = GaussianPrior(random(1, 3, 4, seed=1), 0.3 * random(1, 3, 4, seed=2).exp(), Flow())
MIXTURE = MixturePrior(random(5, 1, 3, 4, seed=3), torch.full((5,), 0.2).double(), 0.1, Flow())


def problem(b: int = 2, rows: slice = slice(None), denoiser: Denoiser = GAUSSIAN) -> Context:
    """A context of `b` different images, or some rows of it."""
    x0, xt, y = (0.5 * random(b, 1, 3, 4, seed=seed)[rows] for seed in (4, 5, 6))
    mask = (random(b, 1, 3, 4, seed=7) > -0.3).double()[rows]
    return context(denoiser, x0, xt, S, T, Likelihood(mask * y, Mask(mask), SIGMA_Y))


def jacobian() -> tuple[Tensor, Tensor]:
    """B and b of the Gaussian prior's denoiser, which is B xs + b."""
    at_zero = GAUSSIAN(torch.zeros(1, 1, 3, 4).double(), S)
    return GAUSSIAN(torch.ones(1, 1, 3, 4).double(), S) - at_zero, at_zero


def minimiser(c: Context) -> DiagonalGaussian:
    """The exact minimiser of the objective under the Gaussian prior."""
    B, b = jacobian()
    mask = c.likelihood.A.mask
    precision = 1 / c.bridge.rho + (mask * B) ** 2 / SIGMA_Y**2
    pull = c.bridge.mu / c.bridge.rho + mask * B * (c.likelihood.y - mask * b) / SIGMA_Y**2
    return DiagonalGaussian(pull / precision, 1 / precision)


def expected(q: DiagonalGaussian, c: Context) -> Tensor:
    """The exact objective under the Gaussian prior, without Monte Carlo."""
    B, b = jacobian()
    mask = c.likelihood.A.mask
    misfit = (c.likelihood.y - mask * (B * q.mu + b)) ** 2 + (mask * B) ** 2 * q.rho
    return q.kl(c.bridge) + misfit.sum((1, 2, 3)) / (2 * SIGMA_Y**2)


def refined(
    c: Context, num_steps: int, lr: float, coordinates: Coordinates, seeds: list[int]
) -> DiagonalGaussian:
    return refine(
        c.bridge,
        c,
        GAUSSIAN,
        Noise(seeds, CPU),
        num_steps=num_steps,
        lr=lr,
        coordinates=coordinates,
    )


each_coordinates = pytest.mark.parametrize("coordinates", ["whitened", "raw"])


def test_objective_is_divergence_plus_misfit_at_the_draw() -> None:
    c, w = problem(denoiser=MIXTURE), random(2, 1, 3, 4, seed=8)
    q = DiagonalGaussian(random(2, 1, 3, 4, seed=9), random(2, 1, 3, 4, seed=10).exp())
    p = Normal(c.bridge.mu, c.bridge.rho.sqrt())
    kl = kl_divergence(Normal(q.mu, q.rho.sqrt()), p).sum((1, 2, 3))
    x0 = MIXTURE(q.mu + q.rho.sqrt() * w, S)
    misfit = (c.likelihood.y - c.likelihood.A(x0)).square().sum((1, 2, 3))
    torch.testing.assert_close(objective(q, c, MIXTURE, w), kl + misfit / (2 * SIGMA_Y**2))


def test_objective_averages_to_the_exact_one() -> None:
    c = problem(b=1)
    q = DiagonalGaussian(c.bridge.mu + 0.1, 0.5 * c.bridge.rho)
    w = random(20_000, 1, 3, 4, seed=8)
    mask, y = (x.expand(len(w), 1, 3, 4) for x in (c.likelihood.A.mask, c.likelihood.y))
    x0, xt, mu, rho = (x.expand(len(w), 1, 3, 4) for x in (c.x0, c.xt, q.mu, q.rho))
    many = context(GAUSSIAN, x0, xt, S, T, Likelihood(y, Mask(mask), SIGMA_Y))
    loss = objective(DiagonalGaussian(mu, rho), many, GAUSSIAN, w)
    assert (loss.mean() - expected(q, c)[0]).abs() < 5 * loss.std() / len(w) ** 0.5


@pytest.mark.parametrize("prior", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_gradient_of_the_objective_is_that_of_finite_differences(prior: Denoiser) -> None:
    c, w = problem(denoiser=prior), random(2, 1, 3, 4, seed=8)
    mu = random(2, 1, 3, 4, seed=9).requires_grad_()
    rho = random(2, 1, 3, 4, seed=10).exp().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda mu, rho: objective(DiagonalGaussian(mu, rho), c, prior, w), (mu, rho)
    )


def test_objective_of_an_image_ignores_the_others() -> None:
    w = random(2, 1, 3, 4, seed=8)
    c = problem(denoiser=MIXTURE)
    together = objective(c.bridge, c, MIXTURE, w)
    for i in range(2):
        row = slice(i, i + 1)
        alone = problem(rows=row, denoiser=MIXTURE)
        torch.testing.assert_close(objective(alone.bridge, alone, MIXTURE, w[row]), together[row])


@each_coordinates
def test_refining_lowers_the_objective_of_every_image(coordinates: Coordinates) -> None:
    c = problem(b=8)
    before = expected(c.bridge, c)
    after = expected(refined(c, 10, 0.05, coordinates, list(range(8))), c)
    assert (after < before).all()


@each_coordinates
def test_refining_converges_to_the_exact_minimiser(coordinates: Coordinates) -> None:
    c = problem(b=8)
    best = minimiser(c)
    q = refined(c, 600, 0.01, coordinates, list(range(8)))
    gap = (expected(q, c) - expected(best, c)) / (expected(c.bridge, c) - expected(best, c))
    assert (gap >= 0).all()
    assert (gap < 0.02).all()
    # One draw a step keeps Adam moving: about lr times the square root of its memory, 0.03 to 0.1.
    distance = (q.mu - best.mu) / best.rho.sqrt()
    assert distance.square().mean().sqrt() < 0.1
    assert (q.rho / best.rho).log().square().mean().sqrt() < 0.1


@each_coordinates
def test_first_step_has_the_length_of_the_learning_rate(coordinates: Coordinates) -> None:
    c = problem()
    q = refined(c, 1, 0.07, coordinates, [0, 1])
    seen = c.likelihood.A.mask.bool()
    unit = c.bridge.rho.sqrt() if coordinates == "whitened" else torch.ones_like(c.bridge.rho)
    in_mu = ((q.mu - c.bridge.mu) / unit)[seen]
    in_log_sigma = (0.5 * (q.rho / c.bridge.rho).log())[seen]
    for step in (in_mu, in_log_sigma):
        torch.testing.assert_close(step.abs(), torch.full_like(step, 0.07))


def test_no_step_leaves_the_start() -> None:
    c = problem()
    assert refined(c, 0, 0.1, "whitened", [0, 1]) is c.bridge


@each_coordinates
def test_refining_begins_where_it_is_told(coordinates: Coordinates) -> None:
    c = problem()
    begin = DiagonalGaussian(c.bridge.mu + random(2, 1, 3, 4, seed=8), 0.3 * c.bridge.rho)
    noise = Noise([0, 1], CPU)
    q = refine(begin, c, GAUSSIAN, noise, num_steps=1, lr=1e-9, coordinates=coordinates)
    torch.testing.assert_close(q.mu, begin.mu)
    torch.testing.assert_close(q.rho, begin.rho)


def test_every_image_may_have_its_own_rate() -> None:
    c = problem(2)
    noise = Noise([0, 1], CPU)
    both = refine(
        c.bridge, c, GAUSSIAN, noise, num_steps=4, lr=torch.tensor([0.1, 0.01]),
        coordinates="whitened",
    )  # fmt: skip
    for i, lr in enumerate((0.1, 0.01)):
        one = problem(2, slice(i, i + 1))
        alone = refine(
            one.bridge, one, GAUSSIAN, Noise([i], CPU), num_steps=4, lr=lr, coordinates="whitened"
        )
        torch.testing.assert_close(both.mu[i : i + 1], alone.mu, rtol=0, atol=1e-4)
        torch.testing.assert_close(both.rho[i : i + 1], alone.rho, rtol=0, atol=1e-4)


def test_every_image_may_have_its_own_number_of_steps() -> None:
    steps, noise = [0, 4, 2], Noise([0, 1, 2], CPU)
    c = problem(b=3)
    together = refine(c.bridge, c, GAUSSIAN, noise, num_steps=steps, lr=0.1, coordinates="whitened")
    after = noise.normal_like(c.x0)
    for i in range(3):
        row, own = slice(i, i + 1), Noise([i], CPU)
        part = problem(b=3, rows=row)
        alone = refine(
            part.bridge, part, GAUSSIAN, own,
            num_steps=steps[i], lr=0.1, coordinates="whitened",
        )  # fmt: skip
        torch.testing.assert_close(together.mu[row], alone.mu)
        torch.testing.assert_close(together.rho[row], alone.rho)
        assert torch.equal(after[row], own.normal_like(part.x0))


@each_coordinates
def test_refining_is_image_by_image(coordinates: Coordinates) -> None:
    together = refined(problem(), 5, 0.1, coordinates, [10, 11])
    for i in range(2):
        row = slice(i, i + 1)
        alone = refined(problem(rows=row), 5, 0.1, coordinates, [10 + i])
        torch.testing.assert_close(alone.mu, together.mu[row])
        torch.testing.assert_close(alone.rho, together.rho[row])


def test_refining_leaves_no_graph_and_moves_no_input() -> None:
    c = problem()
    before = c.bridge.mu.clone()
    q = refined(c, 2, 0.1, "whitened", [0, 1])
    assert not q.mu.requires_grad
    assert not q.rho.requires_grad
    assert torch.equal(c.bridge.mu, before)


@dataclass(frozen=True)
class Predicting:
    """An inference model given as a function."""

    predict: Callable[[Context], DiagonalGaussian]

    def __call__(self, c: Context) -> DiagonalGaussian:
        return self.predict(c)


def worse(c: Context) -> DiagonalGaussian:
    return DiagonalGaussian(c.bridge.mu + 10 * c.bridge.rho.sqrt(), c.bridge.rho)


def scattered(c: Context) -> DiagonalGaussian:
    """Predictions of which about half are better than the bridge."""
    best = minimiser(c)
    shift = 2 * (best.mu - c.bridge.mu).abs().mean((1, 2, 3), keepdim=True)
    mu = best.mu + shift * random(*c.x0.shape, seed=12)
    return DiagonalGaussian(mu, best.rho)


def test_without_a_model_the_start_is_the_bridge() -> None:
    c = problem()
    start = initialise(c, GAUSSIAN, None, Noise([0, 1], CPU))
    assert start.q is c.bridge
    assert start.accepted is None
    assert start.xs is None
    assert start.x0 is None


def test_a_model_that_returns_the_bridge_gives_exactly_the_zero_shot_start() -> None:
    c = problem()
    start = initialise(c, GAUSSIAN, Predicting(lambda c: c.bridge), Noise([0, 1], CPU))
    assert torch.equal(start.q.mu, c.bridge.mu)
    assert torch.equal(start.q.rho, c.bridge.rho)


def test_safeguard_never_chooses_the_larger_objective() -> None:
    b = 64
    c = problem(b=b)
    start = initialise(c, GAUSSIAN, Predicting(scattered), Noise(range(b), CPU))
    w = Noise(range(b), CPU).normal_like(c.x0)
    zero_shot, predicted = (objective(q, c, GAUSSIAN, w) for q in (c.bridge, scattered(c)))
    chosen = objective(start.q, c, GAUSSIAN, w)
    assert start.accepted is not None
    assert 5 < start.accepted.sum() < b - 5
    assert torch.equal(start.accepted, predicted <= zero_shot)
    torch.testing.assert_close(chosen, torch.minimum(zero_shot, predicted))
    assert torch.equal(start.xs, start.q.at(w))
    assert torch.equal(start.x0, GAUSSIAN(start.xs, S))


def test_safeguard_is_image_by_image() -> None:
    b = 16
    together = initialise(problem(b), GAUSSIAN, Predicting(worse_on_odd), Noise(range(b), CPU))
    for i in range(b):
        row = slice(i, i + 1)
        predict = worse if i % 2 else minimiser
        c = problem(b, rows=row)
        alone = initialise(c, GAUSSIAN, Predicting(predict), Noise([i], CPU))
        assert torch.equal(alone.q.mu, together.q.mu[row])
        assert torch.equal(alone.q.rho, together.q.rho[row])
    assert together.accepted is not None
    assert together.accepted.tolist() == [True, False] * (b // 2)


def worse_on_odd(c: Context) -> DiagonalGaussian:
    good, bad = minimiser(c), worse(c)
    odd = (torch.arange(len(c.x0)) % 2 == 1).view(-1, 1, 1, 1)
    return DiagonalGaussian(torch.where(odd, bad.mu, good.mu), torch.where(odd, bad.rho, good.rho))


def test_a_prediction_that_is_not_a_number_is_refused() -> None:
    def broken(c: Context) -> DiagonalGaussian:
        return DiagonalGaussian(c.bridge.mu * float("nan"), c.bridge.rho)

    c = problem()
    start = initialise(c, GAUSSIAN, Predicting(broken), Noise([0, 1], CPU))
    assert torch.equal(start.q.mu, c.bridge.mu)
    assert start.accepted is not None
    assert not start.accepted.any()


def test_every_image_may_have_its_own_times() -> None:
    whole = problem()
    s = torch.tensor([0.2, 0.4], dtype=torch.float64)
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    c = context(GAUSSIAN, whole.x0, whole.xt, s, t, whole.likelihood)
    start = initialise(c, GAUSSIAN, Predicting(lambda c: c.bridge), Noise([0, 1], CPU))
    q = refine(
        start.q, c, GAUSSIAN, Noise([2, 3], CPU), num_steps=3, lr=0.1, coordinates="whitened"
    )
    for i in range(2):
        part = problem(rows=slice(i, i + 1))
        alone = context(GAUSSIAN, part.x0, part.xt, s[i], t[i], part.likelihood)
        q_alone = refine(
            alone.bridge, alone, GAUSSIAN, Noise([2 + i], CPU),
            num_steps=3, lr=0.1, coordinates="whitened",
        )  # fmt: skip
        torch.testing.assert_close(q.mu[i : i + 1], q_alone.mu)
