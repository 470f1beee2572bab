"""Super-resolution of Section 5 and Appendix B: the mean over non-overlapping patches."""

from dataclasses import dataclass

import torch

from lavps_cli.core.operator import Gain
from lavps_cli.core.reduction import check_scale, check_whole
from lavps_cli.core.types import Images, Measurement, PerPicture


@dataclass(frozen=True, eq=False)
class SuperResolution:
    """A x = mean of x over patches of r x r pixels, so that A A^T = I / r^2.

    Args:
        scale: r, the side of a patch in pixels; both sides of a picture are multiples of it.
    """

    scale: int

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, x: Images) -> Measurement:
        r = self.scale
        h, w = x.shape[-2:]
        check_whole(x, r, r, f"divide into patches of {r} x {r}")
        return x.reshape(*x.shape[:-2], h // r, r, w // r, r).mean((-3, -1))

    def adjoint(self, y: Measurement) -> Images:
        return self.pinv(y) / self.scale**2

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return self.pinv(y) / (1 + self.scale**2 * lam)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x: s = 1 / r for the means of patches, 0 for what is around them."""
        means = self.pinv(self(x))
        seen, unseen = gain(torch.tensor([1 / self.scale, 0.0], dtype=torch.float64)).tolist()
        return seen * means + unseen * (x - means)

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y = r^2 A^T y, every value of `y` repeated over its patch."""
        r = self.scale
        h, w = y.shape[-2:]
        patches = y[..., :, None, :, None].expand(*y.shape[:-2], h, r, w, r)
        return patches.flatten(-4, -3).flatten(-2, -1)
