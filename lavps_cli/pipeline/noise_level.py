"""The noise level of a picture, estimated from the picture alone."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d

from lavps_cli.core.types import Image

FLOOR = 1 / 255
"""Half a level of 256 on the [-1, 1] scale: less cannot be told from rounding."""
_BLOCK = 16
_QUANTILE = 0.1
_BELOW = 1.83
"""The quantile of n robust deviations is low by this over sqrt(n); measured on white noise."""


def estimate_noise(x: Image, mask: Float[Tensor, "1 h w"] | None = None) -> float:
    """Return sigma_y of one picture, on the [-1, 1] scale, at least `FLOOR`.

    The deviation of second differences (Immerkaer 1996) within blocks, robust by the median of
    their absolute values; the flattest tenth of the blocks decides, because texture only adds.
    Clipped pixels hide the noise and do not count.

    Args:
        x: One picture, (1, c, h, w).
        mask: 1 where the picture is known.
    """
    if min(x.shape[-2:]) < 3:
        return FLOOR
    bad = (x[0].abs() >= 1).any(0, keepdim=True)
    if mask is not None:
        bad = bad | (mask == 0)
    near = conv2d(bad[None].double(), torch.ones(1, 1, 3, 3, dtype=torch.float64))
    levels = _block_levels(_second_differences(x[0]), near[0, 0] == 0)
    return max(float(levels.quantile(_QUANTILE)), FLOOR) if len(levels) else FLOOR


def _second_differences(x: Float[Tensor, " c h w"]) -> Float[Tensor, " c h2 w2"]:
    """Return second differences along both axes, scaled to the deviation of white noise."""
    d = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    kernel = (d[:, None] * d / 6)[None, None]
    return conv2d(x.double()[:, None], kernel)[:, 0]


def _block_levels(
    detail: Float[Tensor, " c h w"], usable: Bool[Tensor, " h w"]
) -> Float[Tensor, " n"]:
    """Return the robust deviation of the blocks of which the largest share is usable."""
    channels, h, w = detail.shape
    side = min(_BLOCK, h, w)
    rows, cols = h // side, w // side
    detail = detail.masked_fill(~usable, math.nan)[:, : rows * side, : cols * side]
    blocks = detail.reshape(channels, rows, side, cols, side).permute(1, 3, 0, 2, 4)
    blocks = blocks.reshape(rows * cols, -1)
    counts = blocks.isfinite().sum(1)
    enough = counts >= min(0.9 * blocks.shape[1], max(float(counts.max()), 9))
    deviation = blocks[enough].abs().nanmedian(1).values / 0.6745
    return deviation / (1 - _BELOW / counts[enough].double().sqrt()).clamp_min(0.3)
