"""Amortised posterior sampling (APS): the flow, given an observation, as a sampler sees it."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import Schedule
from lavps_cli.core.types import Image, Time
from lavps_cli.models.conditional import estimate
from lavps_cli.models.flow import FlowNetwork
from lavps_cli.models.preconditioning import SIGMA_DATA
from lavps_cli.models.tiled import blend_windows


def coverage(likelihood: Likelihood, like: Image) -> Image:
    """Return how well each pixel is measured: 0 not at all, 1 as well as the noise allows.

    Args:
        likelihood: The observation.
        like: Of the shape of its linear estimate.
    """
    A = cast(LinearOperator, likelihood.A)
    return A.ridge(A(torch.ones_like(like)), likelihood.sigma_y**2 / SIGMA_DATA**2)


def level(sigma_y: float, like: Image) -> Tensor:
    """Return log(sigma_y) / 4 for each row."""
    return like.new_full((len(like),), math.log(sigma_y) / 4)


@dataclass(frozen=True, eq=False)
class AmortisedSampler:
    """A flow that becomes a sampler once it is given an observation."""

    kind: ClassVar[str] = "aps"
    network: FlowNetwork
    schedule: Schedule
    autocast: torch.dtype | None = None
    tile: int = 0
    overlap: int = 0

    def tiled(self, tile: int, overlap: int) -> "AmortisedSampler":
        """Return the same for pictures in windows of that side; 0 is the whole picture."""
        return replace(self, tile=tile, overlap=overlap)

    def given(self, likelihood: Likelihood) -> Denoiser:
        """Return G(z, y) as a function of z, which stands for x_T; the time plays no part."""
        beside = estimate(likelihood)
        return GivenFlow(self, likelihood, beside, coverage(likelihood, beside))


@dataclass(frozen=True, eq=False)
class GivenFlow:
    """x_T -> x_0 in one pass; a single observation is read once, however many samples."""

    sampler: AmortisedSampler
    likelihood: Likelihood
    estimate: Image
    coverage: Image

    @property
    def schedule(self) -> Schedule:
        return self.sampler.schedule

    def __call__(self, xt: Image, t: Time) -> Image:
        network, autocast = self.sampler.network, self.sampler.autocast
        rows = len(self.estimate)
        beside = torch.cat([self.estimate, self.coverage], 1).expand(len(xt), -1, -1, -1)

        def raw(window: Tensor) -> Tensor:
            z, about = window[:, :3], window[:, 3:]
            about = about[:: len(xt)] if rows == 1 else about
            first, second = about.chunk(2, 1)
            with torch.autocast(z.device.type, autocast, enabled=autocast is not None):
                condition = network.condition(first, second, level(self.likelihood.sigma_y, first))
            return network(z, condition.repeated(len(z) // len(about)))[0]

        return blend_windows(
            raw,
            torch.cat([xt, beside.to(xt)], 1),
            tile=self.sampler.tile,
            overlap=self.sampler.overlap,
            multiple=network.config.multiple,
        )
