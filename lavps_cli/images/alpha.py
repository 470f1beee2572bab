"""Colours under transparent pixels: what a file holds there is arbitrary and must not bleed out."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from lavps_cli.core.types import Image


def solid_colours(pixels: Image, alpha: Float[Tensor, "1 1 h w"] | None) -> Image:
    """Return a picture whose invisible pixels continue the colours around them.

    Blurring, shrinking and networks mix neighbours, so that the black or white that programs leave
    under transparency would show as a halo. Visible pixels stay as they are. The colours are
    averages over ever larger squares, each weighed by its opacity (Gortler et al. 1996, push-pull).

    Args:
        pixels: (1, c, h, w).
        alpha: In [0, 1]; None where everything is opaque.
    """
    if alpha is None or bool((alpha > 0).all()) or not bool((alpha > 0).any()):
        return pixels
    return torch.where(alpha > 0, pixels, _filled(pixels * alpha, alpha))


def _filled(weighed: Image, weight: Float[Tensor, "1 1 h w"]) -> Image:
    """Return weighed averages, from coarser squares where nothing weighs."""
    seen = weight > 0
    own = torch.where(seen, weighed / weight.clamp_min(1e-6), 0.0)
    if bool(seen.all()):
        return own
    height, width = weight.shape[-2:]
    even = (0, width % 2, 0, height % 2)
    coarse = _filled(avg_pool2d(pad(weighed, even), 2), avg_pool2d(pad(weight, even), 2))
    size = (coarse.shape[-2] * 2, coarse.shape[-1] * 2)
    grown = interpolate(coarse, size, mode="bilinear", align_corners=False)[..., :height, :width]
    return torch.where(seen, own, grown)
