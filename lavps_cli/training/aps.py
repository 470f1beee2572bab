"""The objective of the APS stage: reverse KL to the posterior, from observations alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.types import Image, PerImage
from lavps_cli.models.amortised import coverage, level
from lavps_cli.models.conditional import estimate
from lavps_cli.models.flow import FlowNetwork
from lavps_cli.training.log import Numbers
from lavps_cli.training.problems import Problems
from lavps_cli.training.rows import Rows
from lavps_cli.training.smoothed import FALLING_STEPS, prior_bound, prior_slope, smoothing

_NOISE = 7


@dataclass(frozen=True)
class Terms:
    """The parts of KL(q(x | y) | p(x | y)) at one sample per image, each per pixel and channel."""

    data: PerImage
    """-log l(y | x)"""
    prior: PerImage
    """The bound of -log p(x), with the slope of -log p(x) for the smoothed prior"""
    spread: PerImage
    """log |det dG/dz|: minus the entropy's part that depends on the flow, with its sign turned"""

    @property
    def kl(self) -> PerImage:
        return self.data + self.prior - self.spread


def terms(
    network: FlowNetwork,
    denoiser: Denoiser,
    likelihood: Likelihood,
    z: Image,
    w: Image,
    place: Tensor,
    ratio: Tensor,
    autocast: torch.dtype | None = None,
) -> Terms:
    """Return the parts of the reverse KL, up to a constant, at x = G(z, y).

    Args:
        network: The flow.
        denoiser: The frozen prior.
        likelihood: The observation.
        z: Standard normal, of the shape of the pictures.
        w: Likewise, for the prior's bound.
        place: In [0, 1), one per picture: where the bound is drawn.
        ratio: Level by which the prior is smoothed that the slope is taken of, one per picture.
        autocast: Precision of the backbone's inside.
    """
    beside = estimate(likelihood)
    with torch.autocast(z.device.type, autocast, enabled=autocast is not None):
        condition = network.condition(
            beside, coverage(likelihood, beside), level(likelihood.sigma_y, beside)
        )
    x, log_det = network(z, condition)
    pixels = x[0].numel()
    along = (prior_slope(denoiser, x, ratio) * x).flatten(1).sum(1)
    prior = prior_bound(denoiser, x, w, place) + along - along.detach()
    return Terms(-likelihood.log_prob(x) / pixels, prior / pixels, log_det / pixels)


@dataclass(eq=False)
class ApsObjective:
    """The reverse KL; families of operators take turns. Pictures serve to simulate observations.

    Args:
        network: The flow, which is trained.
        denoiser: The frozen prior.
        problems: Pictures and operators.
        rows: Of each part of a step.
        begins_smooth: Whether the prior is smoothed at first, for a network that knows nothing yet.
        autocast: Precision of the backbone's inside.
    """

    network: FlowNetwork
    denoiser: Denoiser
    problems: Problems
    rows: list[Rows]
    begins_smooth: bool = True
    autocast: torch.dtype | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        return ("condition",)

    @property
    def waited(self) -> float:
        return self.problems.waited

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        rows = self.rows[part]
        seen = self.problems.observed(step, rows, _NOISE)
        x, generator = seen.x, seen.generator
        z, w = (rows.normal(tuple(x.shape[1:]), generator).to(x) for _ in range(2))
        order = torch.arange(rows.total, device=generator.device)[rows.slice]
        place = ((order + rows.uniform(generator)) / rows.total).to(x.device)
        falling = step if self.begins_smooth else FALLING_STEPS
        found = terms(
            self.network,
            self.denoiser,
            seen.likelihood,
            z,
            w,
            place,
            smoothing(falling, place),
            self.autocast,
        )
        numbers = {
            "loss": found.kl.detach(),
            "loss_data": found.data.detach(),
            "loss_prior": found.prior.detach(),
            "loss_spread": -found.spread.detach(),
            f"loss_{seen.family.name}": found.kl.detach(),
        }
        return found.kl.mean(), numbers

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is kept from step to step."""
