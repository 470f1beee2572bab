"""DDNM+ (Wang et al. 2023), Section 3.3: the range of A from y, its null space drawn.

In z = x_t / alpha_t and r = sigma_t / alpha_t. Along a singular vector with value s, y brings noise
of deviation sigma_y / s, which counts against all the noise of the next level, as in the published
code: where it is less, y replaces x_0 and new noise makes up the rest; where it is more, y pulls so
much less. But for its start this is DDRM with eta_b = 1. Equation (19) as printed counts it against
the new noise of a single step; y brings the same noise at every step, so that with many steps it
would be taken for clean.

The samples are not of the posterior. Gaussian prior of unit variance, sigma_y = 0.3: variances of
known pixels 0.44, 0.30 and 0.10 of the exact ones at K = 20, 100 and 1000 (0.03 by equation (19) at
K = 100), of unknown ones 0.65, 0.72 and 0.75; means right to 0.04.
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
    eta: float = 0.85
    """Share of new noise where y does not bring it."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta is {self.eta}; it lies between 0 and 1.")


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
        old, fresh = (1 - options.eta**2) ** 0.5 * r_next, options.eta * r_next

        def leads(s: Tensor, r_next: float = r_next) -> Tensor:
            """Return whether y is as fine as the next level."""
            return (s > 0) & (r_next * s >= sigma_y)

        def pull(s: Tensor, old: float = old) -> Tensor:
            """Return lambda: 1, or less where y is noisier, 0 where A sees nothing."""
            return torch.where(leads(s), 1.0, old * s / max(sigma_y, 1e-30))

        def new(s: Tensor, fresh: float = fresh, r_next: float = r_next) -> Tensor:
            """Return the deviation of new noise, which y's makes up to r_next."""
            rest = (r_next**2 - (sigma_y / s.clamp_min(1e-30)) ** 2).clamp_min(0).sqrt()
            return torch.where(leads(s), rest, fresh)

        def kept(s: Tensor, old: float = old) -> Tensor:
            """Return the deviation of the noise that z keeps: where A sees nothing."""
            return torch.where(s > 0, 0.0, old)

        found = (z - x0) / r
        x0 = x0 + A.spectral(pull, ybar - x0)
        z = x0 + A.spectral(kept, found) + A.spectral(new, noise.normal_like(x0))
        check_finite(z, k + 1)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, z))
    return z
