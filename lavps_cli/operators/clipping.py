"""Clipping (high dynamic range, Zhang et al. 2025): more contrast than the file holds."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.types import Images, Measurement, PerPicture

HALF_LEVEL = 1 / 255
"""Half a level of 256, on the [-1, 1] scale: nearer to the end than this is clipped."""


@dataclass(frozen=True, eq=False)
class Clipping:
    """A x = gain x, cut to [-1, 1] where the observation was cut; not linear.

    Where the observation is not clipped, neither is A x: the gradient of the likelihood then leads
    back whatever x is, while that of the plain clip(gain x) is zero beyond the ends. Where it is
    clipped, every x beyond the end explains it, as with a censored normal variable. `adjoint` and
    `ridge` are those of gain x: of a residual y - A x they make the step of Gauss and Newton.

    Args:
        gain: Contrast, above 1.
        high: 1 where the observation is clipped to white; its leading axes are the first ones of
            the pictures.
        low: 1 where it is clipped to black.
    """

    gain: float
    high: Float[Tensor, "... c h w"]
    low: Float[Tensor, "... c h w"]

    def __call__(self, x: Images) -> Measurement:
        y = self.gain * x
        y = torch.where(self.high.to(y) > 0, y.clamp(max=1), y)
        return torch.where(self.low.to(y) > 0, y.clamp(min=-1), y)

    def adjoint(self, y: Measurement) -> Images:
        return self.gain * y

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return self.gain * y / (self.gain**2 + lam)


def clipping_of(gain: float, y: Measurement) -> Clipping:
    """Return the operator of an observation on [-1, 1], which tells what was clipped."""
    return Clipping(gain, (y >= 1 - HALF_LEVEL).to(y), (y <= HALF_LEVEL - 1).to(y))
