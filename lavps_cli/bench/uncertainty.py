"""Whether samples spread as the truth does: coverage of intervals, and uniformity of ranks."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.errors import UsageError

LEVEL = 0.9
LEAST = 19
"""Samples from which an interval of 90 % can be told."""


def coverage(
    samples: Float[Tensor, " n *d"], truth: Float[Tensor, " *d"], level: float = LEVEL
) -> float:
    """Return the share of entries whose truth lies within the central interval of the samples.

    The truth, if it is one more draw of the same distribution, is below the j-th of n ordered
    samples with probability j / (n + 1); the ends of the interval are interpolated between them.

    Args:
        samples: Draws.
        truth: What is to be covered.
        level: Of the interval; the share expected.

    Raises:
        UsageError: There are too few samples for the level.
    """
    lower, upper = interval(samples, level)
    return float(((lower <= truth) & (truth <= upper)).double().mean())


def interval(
    samples: Float[Tensor, " n *d"], level: float = LEVEL
) -> tuple[Float[Tensor, " *d"], Float[Tensor, " *d"]]:
    """Return the ends of the central interval of each entry, in float64.

    Args:
        samples: Draws.
        level: The probability that one more draw lies within.

    Raises:
        UsageError: There are too few samples for the level.
    """
    n = len(samples)
    if n < least_samples(level):
        raise UsageError(
            f"{n} samples give no interval of {level:.0%}.",
            f"Take at least {least_samples(level)} of them.",
        )
    low = (1 - level) / 2 * (n + 1)
    ordered = samples.double().sort(0).values
    ends = []
    for place in (low - 1, n - low):  # Counted from 0.
        below = min(max(int(place + 1e-9), 0), n - 1)
        above, share = min(below + 1, n - 1), max(place - below, 0.0)
        ends.append(torch.lerp(ordered[below], ordered[above], share))
    return ends[0], ends[1]


def least_samples(level: float) -> int:
    """Return how many samples it takes for an interval: the ends lie between the outermost."""
    return math.ceil(2 / (1 - level) - 1 - 1e-9)


def calibration_error(samples: Float[Tensor, " n *d"], truth: Float[Tensor, " *d"]) -> float:
    """Return how far the ranks of the truth among the samples are from uniform, 0 to about 0.5.

    The mean difference between their distribution function and the uniform one. Equal values, as
    known pixels have, count half.
    """
    n = len(samples)
    below = (samples < truth).sum(0).double() + 0.5 * (samples == truth).sum(0).double()
    share = ((below + 0.5) / (n + 1)).flatten()
    levels = (torch.arange(1, n + 1, dtype=torch.float64, device=share.device)) / (n + 1)
    reached = torch.stack([(share <= level).double().mean() for level in levels])
    return float((reached - levels).abs().mean())
