"""The bound that a diffusion prior puts on -log p(x) (Song et al. 2021; Kingma et al. 2021)."""

import math

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.schedule import over, time_at_ratio
from lavps_cli.core.types import Image, PerImage

RATIO_MIN, RATIO_MAX = 0.02, 80.0
"""Levels sigma_t / alpha_t between which it is taken."""


def prior_bound(denoiser: Denoiser, x: Image, w: Image, place: Tensor) -> PerImage:
    """Return one draw of an upper bound of -log p(x), without its constant.

    -log p(x) <= integral of |x - D(x + r w)|^2 / r^2 over log r, and equals it for an exact
    denoiser. The draw is at the levels of `place`, and at w and -w: what is odd in w, most of the
    scatter of the gradient, cancels. What does not depend on x is left out.

    Args:
        denoiser: The frozen prior; the gradient goes through it to `x`.
        x: Pictures.
        w: Standard normal, of the same shape.
        place: In [0, 1), one per picture: the quantile of the level.
    """
    span = math.log(RATIO_MAX / RATIO_MIN)
    ratio = RATIO_MIN * torch.exp(span * place.double())
    t = time_at_ratio(denoiser.schedule, ratio).repeat(2)
    alpha = over(denoiser.schedule.alpha(t), x)
    noise = over(ratio, x) * w
    x0 = denoiser(alpha * torch.cat([x + noise, x - noise]), t)
    error = (torch.cat([x, x]) - x0).square().flatten(1).sum(1).view(2, -1).mean(0)
    left_out = noise.square().flatten(1).sum(1)
    bound: Tensor = span * (error - left_out) / ratio.to(error) ** 2
    return bound
