"""Amortised posterior sampling (APS, Mammadov, Chung and Ye 2024): one evaluation is a sample."""

from dataclasses import dataclass

import torch

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class ApsOptions:
    """The settings of the one step."""

    num_steps: int = 1
    """There is only one."""
    temperature: float = 1.0
    """Factor of z: 1 samples, 0 gives the centre of the flow, between a mean and a mode."""

    def __post_init__(self) -> None:
        if self.num_steps != 1:
            raise UsageError(f"num_steps is {self.num_steps}; aps takes one step.")
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}; it must not be negative.")


def evaluations(options: ApsOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return 1, 0


@torch.no_grad()
def aps(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: ApsOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one sample per image, x = G(z, y).

    Args:
        denoiser: The flow, which knows the observation; it takes z in the place of x_T.
        likelihood: Only its precision plays a part.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called once.

    Raises:
        LavpsError: A value is not a number.
    """
    schedule = denoiser.schedule
    z = options.temperature * noise.normal(shape[1:], likelihood.y.dtype)
    x0 = denoiser(z, torch.tensor(schedule.T, dtype=torch.float64))
    check_finite(x0, 1)
    if on_step is not None:
        on_step(Step(1, 1, x0, z))
    return x0
