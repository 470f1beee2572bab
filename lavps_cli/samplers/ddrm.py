"""Denoising diffusion restoration models (DDRM, Kawar et al. 2022), equations (7) and (8).

In z = x_t / alpha_t and r = sigma_t / alpha_t, along each right singular vector of A: where the
observation is coarser than the next level, its noise stands in for part of the new one; where it is
finer, it replaces the prediction.
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
class DdrmOptions:
    """The settings of DDRM; times are those of DDPM."""

    num_steps: int = 20
    """K, diffusion steps."""
    eta: float = 0.85
    """Share of new noise where the observation does not lead."""
    eta_b: float = 1.0
    """Weight of the observation where it does."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")
        for name in ("eta", "eta_b"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it lies between 0 and 1.")


def evaluations(options: DdrmOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps, 0


@torch.no_grad()
def ddrm(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: DdrmOptions,
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
    A, sigma_y = spectral_operator(likelihood, "ddrm"), likelihood.sigma_y
    ratios, ybar = ratio_grid(options.num_steps), least_squares(A, likelihood.y)
    eta, eta_b = options.eta, options.eta_b
    top = ratios[0].item()

    def spread(s: Tensor) -> Tensor:
        """Return the deviation of the observation along a singular vector."""
        return torch.where(s > 0, sigma_y / s.clamp_min(1e-30), float("inf"))

    def first(s: Tensor) -> Tensor:
        return (top**2 - spread(s).clamp_max(top) ** 2).sqrt() * (s > 0) + top * (s == 0)

    z = ybar + A.spectral(first, noise.normal(shape[1:], ybar.dtype))
    for k in range(options.num_steps):
        r, r_next = ratios[k].item(), ratios[k + 1].item()
        x0 = denoised(denoiser, z, ratios[k])
        kept = (1 - eta**2) ** 0.5 * r_next

        def lead(s: Tensor, r_next: float = r_next) -> Tensor:
            """Return 1 where the observation is finer than the next level."""
            return (spread(s) <= r_next).to(s)

        def follow(s: Tensor, kept: float = kept) -> Tensor:
            """Return the weight of y - x0 where it is coarser, but there."""
            return torch.where(s > 0, kept / spread(s).clamp_min(1e-30), 0.0) * (1 - lead(s))

        def towards(s: Tensor) -> Tensor:
            return eta_b * lead(s) + follow(s)

        def old(s: Tensor, kept: float = kept, r: float = r) -> Tensor:
            return kept / r * (s == 0)

        def fresh(s: Tensor, r_next: float = r_next) -> Tensor:
            rest = (r_next**2 - eta_b**2 * spread(s) ** 2).clamp_min(0).sqrt()
            return torch.where(lead(s) > 0, rest, eta * r_next)

        z = (
            x0
            + A.spectral(towards, ybar - x0)
            + A.spectral(old, z - x0)
            + A.spectral(fresh, noise.normal_like(x0))
        )
        check_finite(z, k + 1)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, z))
    return z
