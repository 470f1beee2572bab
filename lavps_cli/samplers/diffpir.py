"""DiffPIR (Zhu et al. 2023), Algorithm 1: plug-and-play by half-quadratic splitting.

In z = x_t / alpha_t and r = sigma_t / alpha_t: the denoised picture moves to the observation in
closed form, and is noised to the next level, partly with the noise that it was found with.

The unit of lambda. The published code minimises |y - A x|^2 + rho |x - x_0|^2 with rho = lambda
sigma_n^2 / r^2, where sigma_n is the noise of pictures in [0, 1], but r that of pictures in [-1,
1], whose y has noise of 2 sigma_n. With sigma_y on the [-1, 1] scale, as everywhere here, rho is
(lambda / 4) sigma_y^2 / r^2, and `strength` lambda / 4: x_0 is taken as normal around the denoised
picture with variance r^2 / strength. (deepinv 0.5.0 has 2 rho: half its lambda is our strength.)
"""

from dataclasses import dataclass
from typing import Literal

import torch

from lavps_cli.core.denoiser import Denoiser, denoised
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import ratio_grid
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffpirOptions:
    """The settings of DiffPIR; times are those of DDPM."""

    num_steps: int = 100
    """K, diffusion steps."""
    strength: float = 1.75
    """lambda / 4, the published 7: how many times narrower than r^2 x_0 is taken to be."""
    zeta: float = 0.3
    """Share of new noise."""
    spacing: Literal["quadratic", "uniform"] = "quadratic"
    """Of DDPM's times; quadratic, as published, has more of them at low noise."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")
        if not 0 < self.strength < float("inf"):
            raise UsageError(f"strength is {self.strength}; it must be positive.")
        if not 0 <= self.zeta <= 1:
            raise UsageError(f"zeta is {self.zeta}; it lies between 0 and 1.")


def evaluations(options: DiffpirOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps, 0


@torch.no_grad()
def diffpir(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: DiffpirOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one sample per image.

    Args:
        denoiser: The prior.
        likelihood: Of a linear operator.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called after every diffusion step.

    Raises:
        UsageError: The operator is not linear.
        LavpsError: A value is not a number.
    """
    if not isinstance(likelihood.A, LinearOperator):
        raise UsageError("diffpir is for linear operators.", "Use:  --method lavps   or mgdm, dps")
    A = likelihood.A
    ratios = ratio_grid(options.num_steps, 0.5 if options.spacing == "quadratic" else 1.0)
    z = ratios[0].item() * noise.normal(shape[1:], likelihood.y.dtype)
    for k in range(options.num_steps):
        r, r_next = ratios[k].item(), ratios[k + 1].item()
        x0 = denoised(denoiser, z, ratios[k])
        x0 = x0 + A.ridge(likelihood.y - A(x0), options.strength * likelihood.sigma_y**2 / r**2)
        old, fresh = (1 - options.zeta) ** 0.5, options.zeta**0.5
        z = x0 + r_next * (old * (z - x0) / r + fresh * noise.normal_like(z))
        check_finite(z, k + 1)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, z))
    return z
