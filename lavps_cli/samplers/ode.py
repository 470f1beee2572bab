"""The probability-flow ODE of a denoiser, by Heun's or Euler's steps (Karras et al. 2022).

With a denoiser that knows the observation (InvFusion, Palette) its ends are samples of the
posterior; the likelihood plays no part any more.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import standard_normal
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import over, time_at_ratio
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError

RHO = 7.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OdeOptions:
    """The settings of the solver."""

    num_steps: int = 18
    """K, from `ratio_max` to 0, where the last is plain denoising."""
    solver: Literal["heun", "euler"] = "heun"
    """`euler` is DDIM without noise; `heun` takes two evaluations a step but for the last."""
    ratio_min: float = 2e-3
    """sigma / alpha of the last step but one."""
    ratio_max: float = 80.0
    """sigma / alpha of the beginning."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")
        if not 0 < self.ratio_min < self.ratio_max < float("inf"):
            raise UsageError(
                f"ratio_min is {self.ratio_min} and ratio_max {self.ratio_max}; they are positive, "
                "and rise."
            )


def evaluations(options: OdeOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    twice = options.num_steps - 1 if options.solver == "heun" else 0
    return options.num_steps + twice, 0


@torch.no_grad()
def ode(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: OdeOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one sample per image of what the denoiser stands for.

    In z = x_t / alpha_t and r = sigma_t / alpha_t the flow is dz/dr = (z - x_0) / r under every
    schedule.

    Args:
        denoiser: Of the posterior: it knows the observation.
        likelihood: Only its precision plays a part.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called after every step.

    Raises:
        LavpsError: A value is not a number.
    """
    schedule, count = denoiser.schedule, options.num_steps
    ratios = _ratios(options)
    times = time_at_ratio(schedule, ratios)

    def x0_at(z: Image, i: int) -> Image:
        return denoiser(over(schedule.alpha(times[i]), z) * z, times[i])

    z = over(ratios[0], likelihood.y) * standard_normal(shape, noise, likelihood.y.dtype)
    for i in range(count):
        r, r_next = ratios[i], ratios[i + 1]
        x0 = x0_at(z, i)
        slope = (z - x0) / over(r, z)
        ahead = z + over(r_next - r, z) * slope
        if options.solver == "heun" and i < count - 1:
            slope = 0.5 * (slope + (ahead - x0_at(ahead, i + 1)) / over(r_next, z))
            ahead = z + over(r_next - r, z) * slope
        z = ahead
        check_finite(z, i + 1)
        if on_step is not None:
            on_step(Step(i + 1, count, x0, z))
    return z


def _ratios(options: OdeOptions) -> Tensor:
    """Return `num_steps` ratios that fall, and 0 (EDM, equation 5)."""
    place = torch.linspace(0, 1, options.num_steps, dtype=torch.float64)
    high, low = options.ratio_max ** (1 / RHO), options.ratio_min ** (1 / RHO)
    return torch.cat([(high + place * (low - high)) ** RHO, torch.zeros(1, dtype=torch.float64)])
