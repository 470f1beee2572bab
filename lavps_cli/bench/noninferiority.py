"""The paired one-sided test of non-inferiority (Appendix B), and bootstrap intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

MARGIN, LEVEL = 0.003, 0.05


@dataclass(frozen=True)
class NonInferiority:
    """The outcome of one test."""

    statistic: float
    """T = (mean + margin) / (s / sqrt n), with the sign of equation (27) corrected."""
    critical: float
    """The quantile that T has to exceed."""
    passed: bool
    n: int


def noninferiority(
    reference: Sequence[int | float],
    candidate: Sequence[int | float],
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
) -> NonInferiority:
    """Return whether the candidate's mean loss exceeds the reference's by less than the margin.

    Args:
        reference: Losses, lower is better, one per image.
        candidate: Of the same images in the same order.
        margin: Delta.
        level: alpha, the risk of passing a candidate that is worse by the margin.
    """
    gains = np.asarray(reference, float) - np.asarray(candidate, float)
    n = len(gains)
    if n < 2:
        return NonInferiority(math.nan, math.nan, False, n)
    spread = float(gains.std(ddof=1)) / math.sqrt(n)
    shift = float(gains.mean()) + margin
    statistic = shift / spread if spread > 0 else math.copysign(math.inf, shift)
    critical = float(stats.t.ppf(1 - level, n - 1))
    return NonInferiority(statistic, critical, statistic > critical, n)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.intp]], float],
    n: int,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of `n` images, drawn with replacement.

    Args:
        statistic: Takes the places of the images drawn.
        n: Images.
        level: Of the interval.
        draws: Resamples.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    found = [statistic(generator.integers(n, size=n)) for _ in range(draws)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[int | float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return math.nan, math.nan
    return bootstrap(lambda places: float(array[places].mean()), len(array))
