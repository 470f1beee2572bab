"""LATINO and its unfolding (Spagnoletti et al. 2025; UD2M, Kemajou Mbakam et al. 2025).

Each iteration takes one step of a split Langevin chain: x_0 moves to the observation in closed
form, is noised to a level that matches what is still unknown, and comes back through a few
deterministic steps of the denoiser. Unfolded, the levels and the trust in x_0 are learnt, and the
denoiser is adapted to what this very chain shows it (`training/latino.py`); the operator enters in
closed form alone, so that another one at test time is no change to the network.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser, denoised
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import over
from lavps_cli.core.step import OnStep, Step, check_finite
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError

SIGMA_DATA = 0.5
"""Deviation of pictures around nothing: the trust in the first x_0."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What changes from iteration to iteration."""

    ratios: Float[Tensor, " k"]
    """sigma_t / alpha_t to which x_0 is noised."""
    trust: Float[Tensor, " k"]
    """Deviation of x_0 that the closed-form step takes for granted, before each iteration."""


def default_plan(num_steps: int) -> Plan:
    """Return levels that fall from 2 to 0.1, each the deviation of the x_0 that comes from it."""
    place = torch.linspace(0, 1, num_steps + 2, dtype=torch.float64)[1:-1]
    ratios = 2.0 * 0.05**place
    return Plan(ratios, torch.cat([torch.tensor([SIGMA_DATA], dtype=torch.float64), ratios[:-1]]))


@dataclass(frozen=True, kw_only=True, slots=True)
class LatinoOptions:
    """The settings of Algorithm 1 of UD2M."""

    num_steps: int = 3
    """K, iterations."""
    jumps: int = 3
    """N, evaluations of the denoiser on the way from a level to 0."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "jumps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")


def evaluations(options: LatinoOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture."""
    return options.num_steps * options.jumps, 0


def latino(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: LatinoOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    on_step: OnStep | None = None,
    plan: Plan | None = None,
) -> Image:
    """Return one sample per image.

    Args:
        denoiser: The prior, or the prior as it was adapted to the chain.
        likelihood: Of a linear operator.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        on_step: Called after every iteration.
        plan: What was learnt, one entry per iteration; None for the usual one.

    Raises:
        UsageError: The operator is not linear, or the plan is for another number of iterations.
        LavpsError: A value is not a number.
    """
    if not isinstance(likelihood.A, LinearOperator):
        raise UsageError(
            "latino moves to the observation in closed form, for linear operators.",
            "Use:  --method lavps   or mgdm, dps",
        )
    plan = default_plan(options.num_steps) if plan is None else plan
    if len(plan.ratios) != options.num_steps:
        raise UsageError(
            f"num_steps is {options.num_steps}; these weights were trained for "
            f"{len(plan.ratios)} iterations.",
            f"Use:  -O num_steps={len(plan.ratios)}   or --inference none",
        )
    x0 = torch.zeros(shape, dtype=likelihood.y.dtype, device=likelihood.y.device)
    for k in range(options.num_steps):
        x0 = towards_observation(likelihood, x0, plan.trust[k])
        r = over(plan.ratios[k], x0)
        x0 = _denoised(denoiser, x0 + r * noise.normal_like(x0), plan.ratios[k], options.jumps)
        check_finite(x0, k + 1)
        if on_step is not None:
            on_step(Step(k + 1, options.num_steps, x0, x0))
    return x0


def towards_observation(likelihood: Likelihood, x0: Image, trust: Float[Tensor, ""]) -> Image:
    """Return argmin_x |y - A x|^2 / (2 sigma_y^2) + |x - x0|^2 / (2 trust^2)."""
    A = cast(LinearOperator, likelihood.A)
    lam = (likelihood.sigma_y / trust.to(x0)) ** 2 * x0.new_ones(len(x0), 1, 1, 1)
    return x0 + A.ridge(likelihood.y - A(x0), lam)


def _denoised(denoiser: Denoiser, z: Image, ratio: Float[Tensor, ""], jumps: int) -> Image:
    """Return x_0 of z = x_0 + ratio w, by `jumps` DDIM steps at falling levels."""
    x0 = z
    for j in range(jumps):
        x0 = denoised(denoiser, z, ratio * (1 - j / jumps) ** 2)
        z = x0 + (1 - 1 / (jumps - j)) ** 2 * (z - x0)
    return x0
