"""Speedup at matched quality (Table 1), and when a training has paid for itself (Table 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavps_cli.bench.noninferiority import NonInferiority, bootstrap, noninferiority
from lavps_cli.bench.records import Record, values


@dataclass(frozen=True, kw_only=True)
class Match:
    """A point of the reference's front, and the fastest candidate that is not worse."""

    reference: dict[str, Any]
    """Options."""
    reference_seconds: float
    reference_units: float
    reference_loss: float
    candidate: dict[str, Any] | None
    candidate_seconds: float | None = None
    candidate_units: float | None = None
    candidate_loss: float | None = None
    speedup: float | None = None
    """Ratio of the mean times of an image."""
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval over the images."""
    predicted: float | None = None
    """The speedup by counted evaluations."""
    test: NonInferiority | None = None
    reference_config: str = ""
    candidate_config: str = ""

    def break_even(self, training_seconds: float) -> float | None:
        """Return after how many images a training is paid back; None: never."""
        if self.candidate_seconds is None or self.candidate_seconds >= self.reference_seconds:
            return None
        return training_seconds / (self.reference_seconds - self.candidate_seconds)


def compare(
    reference: Sequence[Record],
    candidate: Sequence[Record],
    loss: str,
    *,
    sign: int,
    margin: float,
    level: float,
) -> Match | None:
    """Return the match of two configurations if the candidate passes the test, else None.

    Args:
        reference: Records on the test images.
        candidate: Records on the same.
        loss: A metric.
        sign: 1 if lower is better, -1 if higher.
        margin: Delta of the test.
        level: alpha of the test.
    """
    a, b = values(reference, loss), values(candidate, loss)
    both = [key for key in a if key in b]
    first = {(r.image, r.seed): r for r in reference}
    second = {(r.image, r.seed): r for r in candidate}
    test = noninferiority(
        [sign * a[key] for key in both],
        [sign * b[key] for key in both],
        margin=margin,
        level=level,
    )
    if not test.passed:
        return None
    slow = np.array([first[key].seconds for key in both])
    fast = np.array([second[key].seconds for key in both])
    low, high = bootstrap(lambda i: float(slow[i].mean() / fast[i].mean()), len(both))
    units = [np.mean([of[key].units for key in both]) for of in (first, second)]
    return Match(
        reference=reference[0].options,
        reference_seconds=float(slow.mean()),
        reference_units=float(units[0]),
        reference_loss=float(np.mean([a[key] for key in both])),
        candidate=candidate[0].options,
        candidate_seconds=float(fast.mean()),
        candidate_units=float(units[1]),
        candidate_loss=float(np.mean([b[key] for key in both])),
        speedup=float(slow.mean() / fast.mean()),
        low=low,
        high=high,
        predicted=float(units[0] / units[1]),
        test=test,
        reference_config=reference[0].config,
        candidate_config=candidate[0].config,
    )


def unmatched(reference: Sequence[Record], loss: str) -> Match:
    """Return a point of the front that no candidate reaches."""
    found = list(values(reference, loss).values())
    return Match(
        reference=reference[0].options,
        reference_seconds=float(np.mean([r.seconds for r in reference])),
        reference_units=float(np.mean([r.units for r in reference])),
        reference_loss=float(np.mean(found)) if found else float("nan"),
        candidate=None,
        reference_config=reference[0].config,
    )
