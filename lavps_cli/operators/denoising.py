"""Denoising: equation (5) with A the identity, the simplest of the tasks beside Section 5."""

from dataclasses import dataclass

import torch

from lavps_cli.core.operator import Gain
from lavps_cli.core.types import Images, Measurement, PerPicture


@dataclass(frozen=True, eq=False)
class Denoising:
    """A x = x."""

    def __call__(self, x: Images) -> Measurement:
        return x

    def adjoint(self, y: Measurement) -> Images:
        return y

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return y / (1 + lam)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return gain(1) x."""
        return gain(torch.ones(1, dtype=torch.float64)).item() * x

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y = y."""
        return y
