"""The observation model y = A(x0) + sigma_y w, equations (5) and (6)."""

from dataclasses import dataclass

import torch

from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import Operator
from lavps_cli.core.types import Image, Measurement, PerImage


@dataclass(frozen=True, eq=False)
class Likelihood:
    """l_0(y | x0, A), with sigma_y on the [-1, 1] scale."""

    y: Measurement
    A: Operator
    sigma_y: float

    def log_prob(self, x0: Image) -> PerImage:
        """Return log l_0(y | x0, A) per image, without the constant."""
        residual = self.y - self.A(x0)
        return -0.5 * residual.square().flatten(1).sum(1) / self.sigma_y**2


def corrupt(A: Operator, clean: Measurement, sigma_y: float, w: Measurement) -> Likelihood:
    """Return the likelihood of y = clean + sigma_y w, for a noiseless observation and a draw.

    Entries that A does not measure (those it sends to zero whatever the picture) carry no noise.
    """
    return Likelihood(clean + sigma_y * is_measured(A, clean) * w, A, sigma_y)


def is_measured(A: Operator, y: Measurement) -> Measurement:
    """Return 1 where an entry of `y` is a measurement, 0 where A sends every picture to zero."""
    measured: Measurement = getattr(A, "measured", torch.ones_like)(y)
    return measured


def observe(A: Operator, x0: Image, sigma_y: float, noise: Noise) -> Likelihood:
    """Return the likelihood of an observation drawn from equation (5)."""
    clean = A(x0)
    return corrupt(A, clean, sigma_y, noise.normal_like(clean))
