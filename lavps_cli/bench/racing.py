"""Which configurations need no more images: those that another one surely dominates."""

from collections.abc import Mapping, Sequence

import numpy as np

from lavps_cli.bench.noninferiority import noninferiority

RISK = 0.01
LEAST = 4
"""Images before a configuration may be dropped."""


def survivors(
    losses: Mapping[str, Sequence[int | float]],
    seconds: Mapping[str, int | float],
    *,
    risk: float = RISK,
) -> list[str]:
    """Return the configurations that may still belong to the front.

    One is dropped when another is at most as slow and, by a paired one-sided t-test at a risk
    shared among all that could drop it, has a lower loss.

    Args:
        losses: By configuration, the losses of the same images in the same order.
        seconds: What an image costs.
        risk: Of dropping a configuration that no other one dominates.
    """
    names = list(losses)
    count = min((len(losses[name]) for name in names), default=0)
    if count < LEAST:
        return names
    table = {name: np.asarray(losses[name][:count], float) for name in names}
    kept = []
    for name in names:
        rivals = [other for other in names if other != name and seconds[other] <= seconds[name]]
        if not any(_lower(table[r], table[name], risk / len(rivals)) for r in rivals):
            kept.append(name)
    return kept


def _lower(a: np.ndarray, b: np.ndarray, risk: float) -> bool:
    """Return whether the mean of `a` is lower than that of `b`, image by image."""
    better = float((b - a).mean()) > 0  # Equal losses pass the test, without spread.
    return better and noninferiority(b.tolist(), a.tolist(), margin=0.0, level=risk).passed
