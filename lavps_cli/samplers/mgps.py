"""Midpoint guidance posterior sampling (MGPS, Moufad et al. 2025), Algorithm 1.

From t to the next time s, the state at a midpoint m < s is drawn first: a normal law is fitted to
the bridge from D(x_t) and x_t times the likelihood of D(x_m), with the divergence in closed form;
then the bridge from x_m and x_t leads to s. As in the authors' code, the fit begins at the bridge
from the x_0 of the step before, which few gradient steps cannot do without, and at high noise
(`second_fit`) x_0 is fitted a second time, to the likelihood itself, and s reached from there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian, bridge, bridge_between, standard_normal
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import (
    SCHEDULES,
    Schedule,
    noise_ratio,
    over,
    time_at_ratio,
    transition,
)
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image, Time
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class MgpsOptions:
    """The settings of MGPS; times are those of DDPM."""

    num_steps: int = 300
    """K, diffusion steps."""
    grad_steps: int = 2
    """Of Adam at a step."""
    grad_steps_often: int = 20
    """The same at every `often`-th step and at the first five."""
    often: int = 10
    midpoint: float = 0.5
    """m / s in DDPM's time."""
    second_fit: float = 0.7
    """DDPM's time, of 0 to 1, from which on x_0 is fitted too; above 1 never."""
    lr: float = 0.03
    """Of Adam, in variance-preserving coordinates and in the logarithm of the deviation."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "often"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("grad_steps", "grad_steps_often"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        if not 0 < self.midpoint < 1:
            raise UsageError(f"midpoint is {self.midpoint}; it lies between 0 and 1.")
        if not self.second_fit >= 0:
            raise UsageError(f"second_fit is {self.second_fit}; it cannot be negative.")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"lr is {self.lr}; it must be positive.")


EPS = 1e-4
"""Of Adam, in nats: a slope that is nothing but rounding is not to move a pixel by `lr`."""
FIRST = 5
"""Steps at the highest noise that are given `grad_steps_often`."""


def _grad_steps(options: MgpsOptions, k: int) -> int:
    many = k > options.num_steps - FIRST or k % options.often == 0
    return options.grad_steps_often if many else options.grad_steps


def _is_early(options: MgpsOptions, k: int) -> bool:
    return k >= options.second_fit * options.num_steps


def evaluations(options: MgpsOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    steps = range(2, options.num_steps + 1)
    first = sum(_grad_steps(options, k) for k in steps)
    second = sum(_grad_steps(options, k) for k in steps if _is_early(options, k))
    return 2 * len(steps) + 1 + first + second, first


def mgps(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: MgpsOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one sample per image.

    Args:
        denoiser: The prior.
        likelihood: The observations and the operator.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called after every diffusion step.

    Raises:
        LavpsError: A value is not a number.
    """
    schedule, vp = denoiser.schedule, SCHEDULES["vp"]
    steps = torch.arange(options.num_steps + 1, dtype=torch.float64) / options.num_steps * vp.T

    def time_of(step: Time) -> Time:
        return time_at_ratio(schedule, noise_ratio(vp, step))

    first = time_of(torch.tensor(vp.T / 1000, dtype=torch.float64))
    xt = standard_normal(shape, noise, likelihood.y.dtype)
    x0 = None
    for k in range(options.num_steps, 1, -1):
        t = time_of(steps[k]) if k < options.num_steps else torch.tensor(schedule.T).double()
        s, m = time_of(steps[k - 1]), time_of(options.midpoint * steps[k - 1])
        num_grad = _grad_steps(options, k)
        with torch.no_grad():
            found = denoiser(xt, t)
        prior = bridge(schedule, found, xt, m, t)
        start = prior if x0 is None else bridge(schedule, x0, xt, m, t)
        q = _fitted(denoiser, likelihood, start, prior, m, num_grad, options.lr, noise)
        xm = q.sample(noise)
        with torch.no_grad():
            x0 = denoiser(xm, m)
        if _is_early(options, k):
            q = _refitted(denoiser, likelihood, x0, xm, first, m, num_grad, options.lr, noise)
            x0 = q.sample(noise)
            xt = bridge_between(schedule, x0, xt, first, s, t).sample(noise)
        else:
            xt = bridge_between(schedule, xm, xt, m, s, t).sample(noise)
        check_finite(xt, options.num_steps + 1 - k)
        if on_step is not None:
            on_step(Step(options.num_steps + 1 - k, options.num_steps, x0, xt))
    with torch.no_grad():
        x0 = denoiser(xt, time_of(steps[1]))
    if on_step is not None:
        on_step(Step(options.num_steps, options.num_steps, x0, x0))
    return x0


@torch.enable_grad()
def _fitted(
    denoiser: Denoiser,
    likelihood: Likelihood,
    start: DiagonalGaussian,
    prior: DiagonalGaussian,
    m: Time,
    steps: int,
    lr: float,
    noise: Noise,
) -> DiagonalGaussian:
    """Return the normal law that minimises KL(q || prior) - E log l(y | D(x_m)), begun at start."""

    def loss(q: DiagonalGaussian) -> Tensor:
        x0 = denoiser(q.sample(noise), m)
        return (q.kl(prior) - likelihood.log_prob(x0)).sum()

    return _minimised(loss, start, _size(denoiser.schedule, m), steps, lr)


@torch.enable_grad()
def _refitted(
    denoiser: Denoiser,
    likelihood: Likelihood,
    x0: Image,
    xm: Image,
    first: Time,
    m: Time,
    steps: int,
    lr: float,
    noise: Noise,
) -> DiagonalGaussian:
    """Return q that minimises KL(q || p_first(u) q(x_m | u)) - E log l(y | u), at the first time.

    The gradient of log p_first is its score, of one draw; none goes through the denoiser.
    """
    schedule = denoiser.schedule
    alpha, var = schedule.alpha(first), schedule.sigma(first) ** 2
    alpha_m, sigma_m = transition(schedule, first, m)

    def loss(q: DiagonalGaussian) -> Tensor:
        u = q.sample(noise)
        with torch.no_grad():
            score = over(1 / var, u) * (over(alpha, u) * denoiser(u, first) - u)
        misfit = (xm - over(alpha_m, xm) * q.mu).square() + over(alpha_m**2, xm) * q.rho
        ahead = 0.5 * over(1 / sigma_m**2, xm) * misfit
        entropy = 0.5 * q.rho.log()
        return (ahead - entropy - u * score).sum() - likelihood.log_prob(u).sum()

    start = bridge(schedule, x0, xm, first, m)
    return _minimised(loss, start, _size(schedule, first), steps, lr)


def _minimised(
    loss: Callable[[DiagonalGaussian], Tensor],
    start: DiagonalGaussian,
    size: Time,
    steps: int,
    lr: float,
) -> DiagonalGaussian:
    """Return the law after Adam's steps from `start`.

    Adam moves by about `lr` whatever the gradient, so that mu is moved in units in which pictures
    have the size they have under DDPM.
    """
    unit = over(size, start.mu)
    mu = (start.mu / unit).detach().requires_grad_(True)
    log_std = (0.5 * start.rho.log()).detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([mu, log_std], lr, eps=EPS)
    for _ in range(steps):
        q = DiagonalGaussian(unit * mu, (2 * log_std).exp())
        mu.grad, log_std.grad = torch.autograd.grad(loss(q), [mu, log_std])
        adam.step()
    return DiagonalGaussian((unit * mu).detach(), (2 * log_std).exp().detach())


def _size(schedule: Schedule, t: Time) -> Time:
    """Return how many times larger x_t is than under a variance-preserving schedule."""
    return torch.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
