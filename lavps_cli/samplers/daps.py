"""Decoupled annealing posterior sampling (DAPS, Zhang et al. 2025), Algorithm 1.

At each level the probability flow leads to a clean picture, which is taken as the centre of a
normal x_0 with the deviation r of the level; x_0 given the observation, too, is drawn, and noised
to the next level.

What the flow ends in is a sample itself, to which the draw adds the level's variance once more. On
a Gaussian prior of variance v the variance V of z where y says nothing hence goes from level r to
r' by V' = V v / (v + r^2) + r^2 + r'^2, not v + r'^2: with the flow solved exactly samples have 2.1
times the prior's variance at K = 200 (and 2.4 at 60), which five Euler steps of the flow, whose
samples have too little, bring to 1.6. The choice r_t = sigma_t / alpha_t is the published one.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser, denoised
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError

RHO = 7.0
LAST_RATIO = 0.01
"""Level at which the flow ends in plain denoising."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DapsOptions:
    """The settings of DAPS (DAPS-1K)."""

    num_steps: int = 200
    """K, levels of annealing."""
    flow_steps: int = 5
    """Euler steps of the flow at each level."""
    ratio_max: float = 100.0
    ratio_min: float = 0.1
    """sigma / alpha of the first and the last level."""
    langevin_steps: int = 0
    """Of x_0 given y; 0 draws it exactly, which takes a linear operator."""
    lr: float = 0.5
    """Of Langevin's steps at the first level; a hundredth at the last. In units of the variance of
    x_0 where y measures it, 1 / (1 / sigma_y^2 + 1 / r^2): published are 0.2 to 1 by task (2e-5 to
    1e-4, for a sigma_y that is set to 0.01). Langevin's draw is wider than its law by 1 / (1 - lr /
    2), and diverges from 2 on for operators with singular values up to 1."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "flow_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.langevin_steps < 0:
            raise UsageError(f"langevin_steps is {self.langevin_steps}; it cannot be negative.")
        if not 0 < self.ratio_min < self.ratio_max < float("inf"):
            raise UsageError(
                f"ratio_min is {self.ratio_min} and ratio_max {self.ratio_max}; they are positive, "
                "and rise."
            )
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"lr is {self.lr}; it must be positive.")


def evaluations(options: DapsOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps * options.flow_steps, 0


@torch.no_grad()
def daps(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: DapsOptions,
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
        on_step: Called after every level.

    Raises:
        UsageError: The operator is not linear, and `langevin_steps` is 0.
        LavpsError: A value is not a number.
    """
    if options.langevin_steps == 0 and not isinstance(likelihood.A, LinearOperator):
        raise UsageError(
            "daps draws x_0 given y exactly, for linear operators.", "Use:  -O langevin_steps=100"
        )
    levels = _levels(options.ratio_max, options.ratio_min, options.num_steps)
    z = levels[0].item() * noise.normal(shape[1:], likelihood.y.dtype)
    x0 = z
    for k, level in enumerate(levels):
        r = level.item()
        centre = _flowed(denoiser, z, r, options.flow_steps)
        if options.langevin_steps:
            done = k / max(options.num_steps - 1, 1)
            lr = options.lr * (1 - 0.99 * done)
            x0 = _langevin(likelihood, centre, r, options.langevin_steps, lr, noise)
        else:
            x0 = _drawn(likelihood, centre, r, noise)
        check_finite(x0, k + 1)
        if k + 1 < options.num_steps:
            z = x0 + levels[k + 1].item() * noise.normal_like(x0)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, z))
    return x0


def _levels(high: float, low: float, count: int) -> Tensor:
    """Return levels that fall as in EDM, equation (5)."""
    place = torch.linspace(0, 1, count, dtype=torch.float64)
    a, b = high ** (1 / RHO), low ** (1 / RHO)
    return (a + place * (b - a)) ** RHO


def _flowed(denoiser: Denoiser, z: Image, r: float, steps: int) -> Image:
    """Return x_0 at the end of the probability flow from level r, by Euler's steps."""
    levels = torch.cat([_levels(r, min(LAST_RATIO, r / 2), steps), torch.zeros(1).double()])
    for here, after in pairwise(levels):
        x0 = denoised(denoiser, z, here)
        z = x0 + (after / here).item() * (z - x0)
    return z


def _drawn(likelihood: Likelihood, centre: Image, r: float, noise: Noise) -> Image:
    """Return x_0 ~ N(centre, r^2 I) given y: a draw of the prior, moved by the misfit of a draw."""
    A, sigma_y = cast(LinearOperator, likelihood.A), likelihood.sigma_y
    x = centre + r * noise.normal_like(centre)
    y = likelihood.y + sigma_y * noise.normal_like(likelihood.y)
    return x + A.ridge(y - A(x), (sigma_y / r) ** 2)


def _langevin(
    likelihood: Likelihood, centre: Image, r: float, steps: int, lr: float, noise: Noise
) -> Image:
    """Return x_0 after Langevin's steps on the same law, for any operator."""
    step = lr / (1 / likelihood.sigma_y**2 + 1 / r**2)
    x = centre.clone()
    for _ in range(steps):
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            energy = (x - centre).square().sum() / (2 * r**2) - likelihood.log_prob(x).sum()
            (slope,) = torch.autograd.grad(energy, x)
        x = x.detach() - step * slope + (2 * step) ** 0.5 * noise.normal_like(x)
    return x
