"""RED-diff (Mardani et al. 2024), Algorithm 1: one picture, found by stochastic optimisation.

A mode seeker: the variational posterior is a point, so that samples hardly differ.
"""

from dataclasses import dataclass

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
class ReddiffOptions:
    """The settings of RED-diff; times are those of DDPM, falling."""

    num_steps: int = 1000
    """K, steps of Adam."""
    strength: float = 0.25
    """lambda: weight of the prior, times sigma_t / alpha_t."""
    lr: float = 0.1

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UsageError(f"num_steps is {self.num_steps}; it must be at least 1.")
        for name in ("strength", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; it must be positive.")


def evaluations(options: ReddiffOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps, 0


def reddiff(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: ReddiffOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
) -> Image:
    """Return one picture per image.

    Args:
        denoiser: The prior; no gradient goes through it.
        likelihood: The observations and the operator; sigma_y plays no part.
        options: The settings.
        shape: (b, c, h, w) of the pictures.
        noise: One generator per image.
        on_step: Called after every step.

    Raises:
        LavpsError: A value is not a number.
    """
    A, y, ratios = likelihood.A, likelihood.y, ratio_grid(options.num_steps)
    start = torch.zeros(shape, dtype=y.dtype, device=y.device)
    if isinstance(A, LinearOperator):
        start = A.ridge(y, likelihood.sigma_y**2)
    mu = start.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([mu], options.lr, (0.9, 0.99))
    for k in range(options.num_steps):
        r = ratios[k].item()
        with torch.no_grad():
            w = noise.normal_like(mu)
            z = mu + r * w
            x0 = denoised(denoiser, z, ratios[k])
            # lambda sigma / alpha times (w as the denoiser sees it, (z - x0) / r, less w drawn).
            pull = options.strength * (mu - x0)
        with torch.enable_grad():
            misfit = 0.5 * (y - A(mu)).square().mean((1, 2, 3)).sum()
            loss = misfit + (pull * mu).mean((1, 2, 3)).sum()
            (mu.grad,) = torch.autograd.grad(loss, mu)
        adam.step()
        check_finite(mu.detach(), k + 1)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, mu.detach()))
    return mu.detach()
