"""Diffusion posterior sampling (Chung et al. 2023), Algorithm 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import bridge, standard_normal
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Schedule, over, time_grid
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image, Time
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class DpsOptions:
    """The settings of DPS; times are those of DDPM, uniform under its schedule."""

    num_steps: int = 1000
    """K, diffusion steps."""
    zeta: float = 1.0
    """Step size along the gradient of |y - A(x_0)|, not squared, in variance-preserving
    coordinates."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")
        if not 0 <= self.zeta < float("inf"):
            raise UsageError(f"zeta is {self.zeta}; it cannot be negative.")


def evaluations(options: DpsOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps, options.num_steps


def dps(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: DpsOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one sample per image.

    Args:
        denoiser: The prior.
        likelihood: The observations and the operator; sigma_y plays no part.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called after every diffusion step.

    Raises:
        LavpsError: A value is not a number.
    """
    schedule = denoiser.schedule
    times = time_grid(schedule, options.num_steps, "vp")
    xt = standard_normal(shape, noise, likelihood.y.dtype)
    for k in range(options.num_steps, 0, -1):
        s, t = times[k - 1], times[k]
        x0, gradient = _guided(denoiser, likelihood, xt, t)
        xs = bridge(schedule, x0, xt, s, t).sample(noise)
        # The scale of x_t depends on the schedule; zeta is to mean the same under each.
        xt = xs - options.zeta * over(_scale(schedule, s) * _scale(schedule, t), xs) * gradient
        check_finite(xt, options.num_steps + 1 - k)
        if on_step is not None:
            on_step(Step(options.num_steps + 1 - k, options.num_steps, x0, xt))
    return xt


@torch.enable_grad()
def _guided(denoiser: Denoiser, likelihood: Likelihood, xt: Image, t: Time) -> tuple[Image, Tensor]:
    """Return x_0, and the gradient in x_t of the norm of the residual, image by image."""
    xt = xt.detach().requires_grad_(True)
    x0 = denoiser(xt, t)
    residual = (likelihood.y - likelihood.A(x0)).flatten(1)
    (gradient,) = torch.autograd.grad(residual.norm(dim=1).sum(), xt)
    return x0.detach(), gradient


def _scale(schedule: Schedule, t: Time) -> Time:
    """Return how many times larger x_t is than under a variance-preserving schedule."""
    return torch.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
