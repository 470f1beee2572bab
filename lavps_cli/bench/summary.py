"""Records to numbers: one row per configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavps_cli.bench.noninferiority import mean_interval
from lavps_cli.bench.records import Record


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A metric over images."""

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    """The 95 % bootstrap interval of the mean."""
    n: int
    reason: str | None = None
    """Why there is no value."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the records of one configuration say."""

    config: str
    method: str
    options: dict[str, Any]
    task: str
    n: int
    failed: int
    seconds: float | None
    """Median of an image."""
    seconds_low: float | None
    seconds_high: float | None
    """Quartiles."""
    nfe: float
    nbe: float
    units: float
    """Means of an image."""
    acceptance: float | None
    """Share of the predicted starts that the safeguard kept."""
    peak_mb: float | None
    metrics: dict[str, Statistic]


def summarise(records: Sequence[Record], metrics: Sequence[str]) -> Row:
    """Return the row of one configuration.

    Args:
        records: Its records, at least one.
        metrics: The names that are told.
    """
    first = records[0]
    good = [record for record in records if record.error is None]
    seconds = [record.seconds for record in good]
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]) if seconds else (None,) * 3
    offered = sum(record.offered for record in good)
    peaks = [record.peak_mb for record in good if record.peak_mb is not None]
    return Row(
        config=first.config,
        method=first.method,
        options=first.options,
        task=first.task,
        n=len(good),
        failed=len(records) - len(good),
        seconds=_rounded(middle),
        seconds_low=_rounded(low),
        seconds_high=_rounded(high),
        nfe=_mean([record.nfe for record in good]),
        nbe=_mean([record.nbe for record in good]),
        units=_mean([record.units for record in good]),
        acceptance=sum(r.accepted for r in good) / offered if offered else None,
        peak_mb=max(peaks, default=None),
        metrics={name: _statistic(good, name) for name in metrics},
    )


def _statistic(records: Sequence[Record], name: str) -> Statistic:
    found = [value for r in records if (value := r.metrics.get(name)) is not None]
    reasons = {r.reasons[name] for r in records if name in r.reasons}
    return statistic_of(found, "; ".join(sorted(reasons)) or "no image has it")


def statistic_of(found: Sequence[int | float], reason: str) -> Statistic:
    """Return mean, spread and interval of values; `reason` says why there are none."""
    if not found:
        return Statistic(mean=None, sd=None, low=None, high=None, n=0, reason=reason)
    several = len(found) > 1
    low, high = mean_interval(found) if several else (None, None)
    return Statistic(
        mean=_mean(found),
        sd=float(np.std(found, ddof=1)) if several else None,
        low=low,
        high=high,
        n=len(found),
    )


def _mean(numbers: Sequence[int | float]) -> float:
    return float(np.mean(numbers)) if numbers else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


@dataclass(frozen=True)
class Difference:
    """What one configuration is better by than another, on the images both have."""

    gain: float
    """Mean; positive is better."""
    low: float | None
    high: float | None
    n: int


def difference(old: Sequence[Record], new: Sequence[Record], name: str, higher: bool) -> Difference:
    """Return by how much `new` is better, image by image."""
    before = {(r.image, r.seed): r.metrics.get(name) for r in old}
    gains = []
    for record in new:
        a, b = before.get((record.image, record.seed)), record.metrics.get(name)
        if a is not None and b is not None:
            gains.append((b - a) * (1 if higher else -1))
    if not gains:
        return Difference(0.0, None, None, 0)
    low, high = mean_interval(gains) if len(gains) > 1 else (None, None)
    return Difference(_mean(gains), low, high, len(gains))
