"""DDNM+ (Wang et al. 2023), equations (17) to (19): the range of A from y, its null space drawn.

In z = x_t / alpha_t and r = sigma_t / alpha_t. The bridge of DDPM from x_0 and z to the next level
has the deviation sigma; along a singular vector where the noise of y would exceed it, y pulls less.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser, denoised
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import ratio_grid
from lavps_cli.core.spectrum import least_squares, spectral_operator
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class DdnmOptions:
    """The settings of DDNM+; times are those of DDPM."""

    num_steps: int = 100
    """K, diffusion steps."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")


def evaluations(options: DdnmOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps, 0


@torch.no_grad()
def ddnm(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: DdnmOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one sample per image.

    Args:
        denoiser: The prior.
        likelihood: Of an operator with singular vectors in closed form.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called after every diffusion step.

    Raises:
        UsageError: The operator has no such vectors.
        LavpsError: A value is not a number.
    """
    A, sigma_y = spectral_operator(likelihood, "ddnm"), likelihood.sigma_y
    ratios, ybar = ratio_grid(options.num_steps), least_squares(A, likelihood.y)
    z = ratios[0].item() * noise.normal(shape[1:], ybar.dtype)
    for k in range(options.num_steps):
        r, r_next = ratios[k].item(), ratios[k + 1].item()
        x0 = denoised(denoiser, z, ratios[k])
        on_x0 = 1 - (r_next / r) ** 2
        sigma = r_next * on_x0**0.5

        def pull(s: Tensor, on_x0: float = on_x0, sigma: float = sigma) -> Tensor:
            """Return lambda: 1, or less where y is noisier than the bridge."""
            noisy = torch.where(s > 0, on_x0 * sigma_y / s.clamp_min(1e-30), float("inf"))
            return torch.where(noisy <= sigma, 1.0, sigma / noisy)

        def fresh(s: Tensor, on_x0: float = on_x0, sigma: float = sigma) -> Tensor:
            of_y = on_x0 * pull(s) * sigma_y / s.clamp_min(1e-30)
            return torch.where(s > 0, (sigma**2 - of_y**2).clamp_min(0).sqrt(), sigma)

        x0 = x0 + A.spectral(pull, ybar - x0)
        z = on_x0 * x0 + (1 - on_x0) * z + A.spectral(fresh, noise.normal_like(x0))
        check_finite(z, k + 1)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, z))
    return z
