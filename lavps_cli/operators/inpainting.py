"""Inpainting of Section 5 and Appendix B, and the masks drawn there."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, pad

from lavps_cli.core.operator import Gain
from lavps_cli.core.types import Images, Measurement, PerPicture
from lavps_cli.errors import DataError


@dataclass(frozen=True, eq=False)
class Inpainting:
    """A x = mask x; the size is kept and a missing pixel is exactly zero.

    Args:
        mask: 1 = known, 0 = to fill. Its leading axes are the first ones of the pictures; without
            any, the same mask serves every picture.
    """

    mask: Float[Tensor, "... 1 h w"]

    def __call__(self, x: Images) -> Measurement:
        return self._over(x) * x

    def adjoint(self, y: Measurement) -> Images:
        return self._over(y) * y

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return self._over(y) * y / (1 + lam)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x: A is a projection, s = 1 or 0."""
        seen, unseen = gain(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        return unseen * x + (seen - unseen) * self(x)

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y = A^T y, since A is a projection."""
        return self.adjoint(y)

    def measured(self, y: Measurement) -> Measurement:
        """Return 1 where an entry of `y` is a measurement, 0 where it is zero for any picture."""
        return self._over(y).expand_as(y)

    def _over(self, x: Images) -> Float[Tensor, "... 1 h w"]:
        """Return the mask in the type of `x`, its leading axes in line with the first of `x`."""
        *lead, _, h, w = self.mask.shape
        if x.shape[-2:] != (h, w):
            raise DataError(
                f"The mask is {w} x {h} pixels, the picture {x.shape[-1]} x {x.shape[-2]}.",
                "Give a mask of the size of the picture, or resize it.",
            )
        shared = (1,) * (x.ndim - len(lead) - 3)
        return self.mask.to(x).reshape(*lead, *shared, 1, h, w)


@dataclass(frozen=True, eq=False)
class GuidedInpainting:
    """A x = x where the mask is 1, and the mean of each block of pixels where `blocks` is 1.

    A block's mean stands at each of its pixels, which makes A an orthogonal projection, and sigma_y
    the noise of a known pixel, sigma_y / factor that of a mean.

    Args:
        mask: 1 = known, one for all pictures.
        blocks: 1 = the mean of this block is known; covers no known pixel.
        factor: Side of a block in pixels.
    """

    mask: Float[Tensor, "1 h w"]
    blocks: Float[Tensor, "1 p q"]
    factor: int

    def __call__(self, x: Images) -> Measurement:
        planes = x.reshape(-1, 1, *x.shape[-2:])
        means = avg_pool2d(planes, self.factor) * self.blocks.to(x)
        guide = enlarged(means, self.factor, x.shape[-2:])
        return self.mask.to(x) * x + guide.view_as(x)

    def adjoint(self, y: Measurement) -> Images:
        return self(y)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return self(y) / (1 + lam)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x: A is a projection, s = 1 or 0."""
        seen, unseen = gain(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        return unseen * x + (seen - unseen) * self(x)

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y = A^T y, since A is a projection."""
        return self(y)


def enlarged(x: Tensor, factor: int, size: tuple[int, ...]) -> Tensor:
    """Return every pixel as a block, with zeros at the end where blocks do not fill `size`."""
    x = x.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    return pad(x, (0, size[-1] - x.shape[-1], 0, size[-2] - x.shape[-2]))


Mask: TypeAlias = Float[Tensor, "1 h w"]


def centre_mask(h: int, w: int) -> Mask:
    """Return the mask whose hole is the centre square of half the (shorter) side."""
    side = min(h, w) // 2
    return _with_hole(h, w, (h - side) // 2, (w - side) // 2, side, side)


def rectangle_mask(h: int, w: int, generator: Generator) -> Mask:
    """Return a mask whose hole is a rectangle anywhere, of 0.4 to 0.6 of either side."""
    u = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    height, width = round(h * (0.4 + 0.2 * u[0])), round(w * (0.4 + 0.2 * u[1]))
    top, left = int(u[2] * (h - height + 1)), int(u[3] * (w - width + 1))
    return _with_hole(h, w, top, left, height, width)


def pixel_mask(
    h: int, w: int, generator: Generator, low: int | float = 0.8, high: int | float = 0.85
) -> Mask:
    """Return a mask that drops each pixel, all channels alike, with one probability p.

    Args:
        h: Height in pixels.
        w: Width in pixels.
        generator: On the CPU, so that a seed gives the same mask on every device.
        low: Least p; p is uniform between the two.
        high: Greatest p.
    """
    p = low + (high - low) * torch.rand((), generator=generator)
    return (torch.rand(1, h, w, generator=generator) >= p).float()


def _with_hole(h: int, w: int, top: int, left: int, height: int, width: int) -> Mask:
    mask = torch.ones(1, h, w)
    mask[:, top : top + height, left : left + width] = 0
    return mask
