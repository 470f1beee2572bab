"""Pareto fronts of cost and loss."""

from collections.abc import Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[int | float, int | float]
"""Cost and loss; both are better when lower."""


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the places of the points that no other one dominates, cheapest first.

    A point dominates another if it is nowhere worse and somewhere better; of equal points the
    first one stays.
    """
    front: list[int] = []
    best = float("inf")
    for i in sorted(range(len(points)), key=lambda i: (*points[i], i)):
        if points[i][1] < best:
            front.append(i)
            best = points[i][1]
    return front
