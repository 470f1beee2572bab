"""What a diffusion prior says of -log p(x): its bound, and its slope (Song et al. 2021)."""

import math

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser, denoised
from lavps_cli.core.schedule import over
from lavps_cli.core.types import Image, PerImage

RATIO_MIN, RATIO_MAX = 0.02, 80.0
"""Levels sigma_t / alpha_t between which the bound is taken."""
RATIO_FIRST, FALLING_STEPS, SPAN = 1.0, 500, 10.0
"""The least level by which a training smooths the prior at first, after how many steps that is the
bound's least, and how many times higher the highest is."""


@torch.no_grad()
def prior_bound(denoiser: Denoiser, x: Image, w: Image, place: Tensor) -> PerImage:
    """Return one draw of an upper bound of -log p(x), without its constant.

    -log p(x) <= integral of |x - D(x + r w)|^2 / r^2 over log r, and equals it for an exact
    denoiser. What does not depend on x is left out.

    Args:
        denoiser: The frozen prior.
        x: Pictures.
        w: Standard normal, of the same shape.
        place: In [0, 1), one per picture: the quantile of the level.
    """
    span = math.log(RATIO_MAX / RATIO_MIN)
    ratio = RATIO_MIN * torch.exp(span * place.double())
    noise = over(ratio, x) * w
    error = x - denoised(denoiser, x + noise, ratio)
    excess = (error.square() - noise.square()).flatten(1).sum(1)
    bound: Tensor = span * excess / ratio.to(excess) ** 2
    return bound


@torch.no_grad()
def prior_slope(denoiser: Denoiser, x: Image, ratio: Tensor) -> Image:
    """Return the slope of -log p(x), of the prior smoothed by noise of a ratio for each picture.

    It is (x - D(x)) / r^2 (Tweedie's formula), and for an exact denoiser the slope of the bound
    whose least level is r. A learnt one's bound has another slope, which is of little use: it goes
    through the denoiser's Jacobian, and a picture that it leaves alone, such as one whose noise it
    takes for texture, is a valley. In `training/aps.py` means stayed there at the observation.
    """
    return (x - denoised(denoiser, x, ratio)) / over(ratio, x) ** 2


def smoothing(step: int, place: Tensor) -> Tensor:
    """Return the levels by which a training smooths its prior at a step.

    They span a factor of ten, which falls geometrically. At high levels the prior says how holes
    are filled and blurs undone, at low ones how noise differs from texture. A learnt prior is not
    to be trusted at its least level alone: there it takes a chequerboard for texture, and a flow
    for noise of 0.2 learnt to draw one.

    Args:
        step: Of the training.
        place: In [0, 1), one per picture: where in the span.
    """
    left = max(1 - step / FALLING_STEPS, 0)
    return RATIO_MIN * (RATIO_FIRST / RATIO_MIN) ** left * SPAN ** place.double()
