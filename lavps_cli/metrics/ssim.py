"""Structural similarity (Wang et al. 2004)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from lavps_cli.core.types import Image, PerImage
from lavps_cli.errors import DataError

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(xhat: Image, x: Image) -> PerImage:
    """Return the mean SSIM over channels and positions: Gaussian window 11 x 11, sigma 1.5.

    Values are taken to [0, 1] first. Positions whose window leaves the picture do not count.

    Raises:
        DataError: A side is shorter than the window.
    """
    if min(x.shape[-2:]) <= 2 * _RADIUS:
        raise DataError(
            f"SSIM needs at least 11x11 pixels, not {x.shape[-1]}x{x.shape[-2]}.",
            "Take a larger picture.",
        )
    a, b = ((picture.double() + 1) / 2 for picture in (xhat, x))
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return (luminance * structure).mean((1, 2, 3))


def _window(x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h2 w2"]:
    """Return local means under the Gaussian window, where it fits."""
    offset = torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype, device=x.device)
    profile = (-0.5 * (offset / _SIGMA) ** 2).exp()
    profile = profile / profile.sum()
    b, c, h, w = x.shape
    planes = x.reshape(b * c, 1, h, w)
    planes = conv2d(conv2d(planes, profile.view(1, 1, -1, 1)), profile.view(1, 1, 1, -1))
    return planes.view(b, c, *planes.shape[-2:])
