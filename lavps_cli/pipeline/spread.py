"""What several samples say beyond a picture: their deviation, and intervals that hold most."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.bench.uncertainty import interval, least_samples
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError
from lavps_cli.images.colour_map import colour_map
from lavps_cli.images.picture import Picture, Plane
from lavps_cli.images.writing import encode, encode_deep
from lavps_cli.pipeline.paths import check_outputs
from lavps_cli.pipeline.requests import Sampling

_LEVELS = 127.5
"""Of 8 bits, in a unit of [-1, 1]."""
_ROWS = 1 << 20
"""Values of the samples that are sorted at a time."""


@dataclass(frozen=True, eq=False)
class Deviation:
    """The standard deviation of samples, as files and in numbers."""

    png: bytes
    """Grey, 16 bits."""
    coloured: bytes
    about: dict[str, Any]


def check_spread(inputs: tuple[str, ...], sampling: Sampling) -> None:
    """Check what is asked of several samples.

    Args:
        inputs: The pictures.
        sampling: What is asked.

    Raises:
        UsageError: There are too few of them, or files that cannot be told apart.
    """
    n, level = sampling.samples, sampling.intervals
    if n < 2:
        for flag, given in (("--mean", sampling.mean), ("--uncertainty", sampling.uncertainty)):
            if given:
                raise UsageError(f"{flag} needs several samples.", f"Add:  --samples 8 {flag}")
    if level is not None:
        if not 0 < level < 100:
            raise UsageError(
                f"--intervals {level:g}: expected percents between 0 and 100.",
                "For example:  --samples 19 --intervals 90",
            )
        least = least_samples(level / 100)
        if n < least:
            # The outermost samples are the widest interval there is.
            most = f"      or with these samples:  --intervals {_percent(n)}" if n > 1 else ""
            raise UsageError(
                f"--intervals {level:g} takes {least} samples, and --samples is {n}.",
                f"Add:  --samples {least}{most}",
            )
    if sampling.uncertainty is not None:
        if not sampling.uncertainty.lower().endswith(".png"):
            raise UsageError(
                f"--uncertainty {sampling.uncertainty}: it is written as PNG.",
                "For example:  --uncertainty spread.png",
            )
        check_outputs(inputs, sampling.uncertainty, 1, option="--uncertainty")


def _percent(n: int) -> int:
    """Return the widest interval that samples tell, rounded down."""
    return next(p for p in range(100, 0, -1) if p < 100 and least_samples(p / 100) <= n)


def deviation(samples: Image) -> Deviation:
    """Return the standard deviation per pixel; of colours the root of their mean variance.

    Args:
        samples: Of one picture, (n, c, h, w) in [-1, 1], n at least 2.
    """
    n = len(samples)
    values = samples.var(0).mean(0).sqrt()
    largest = float(values.max())
    top = largest or 1.0
    # Of normal draws, the deviation of n of them is known that well.
    error = (2 * (n - 1)) ** -0.5
    caption = f"standard deviation of {n} samples (± {error:.0%}), in levels of 255"
    shown = colour_map(values * _LEVELS, _bright(values), caption)
    return Deviation(
        png=encode_deep(values / top),
        coloured=encode(Picture(shown), "png"),
        about={
            "scale": top / 65535,
            "mean": round(float(values.mean()), 6),
            "largest": round(largest, 6),
            "samples": n,
            "relative_error": round(error, 3),
        },
    )


def _bright(values: Plane) -> float:
    """Return the 8-bit levels of the brightest colour; few pixels may lie beyond it."""
    flat = values.flatten()
    place = max(1, round(0.995 * len(flat)))
    value = float(flat.kthvalue(place).values) or float(flat.max())
    # Up to a number whose quarters are short, in 8-bit levels.
    unit = 10.0 ** math.floor(math.log10(value * _LEVELS)) if value > 0 else 1.0
    return next((n for n in (1, 2, 3, 4, 6, 8) if n * unit >= value * _LEVELS), 10) * unit


def bounds(
    samples: Float[Tensor, "n c h w"], percent: float
) -> tuple[Float[Tensor, "1 c h w"], Float[Tensor, "1 c h w"]]:
    """Return the ends of the central interval of each value.

    Each pixel and colour has its own interval: together they are no picture that is likely.

    Args:
        samples: Of one picture.
        percent: How many of further samples lie within, for each value.

    Raises:
        UsageError: There are too few samples.
    """
    rows = max(1, _ROWS // samples[..., :1, :].numel())
    parts = [interval(band, percent / 100) for band in torch.split(samples, rows, dim=-2)]
    lower, upper = (torch.cat(ends, dim=-2)[None].float() for ends in zip(*parts, strict=True))
    return lower, upper
