"""Pictures with operators for them: p_op of Algorithm 1, family by family."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator

from lavps_cli.core.likelihood import Likelihood, corrupt
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image
from lavps_cli.operators.per_picture import of_rows
from lavps_cli.training.families import Family
from lavps_cli.training.rows import Batches, Rows, generator_of

_TURN, _OPERATOR = 2, 4


@dataclass(frozen=True, eq=False)
class Observed:
    """Pictures of one family's turn, and what was observed of them."""

    family: Family
    x: Image
    likelihood: Likelihood
    generator: Generator
    """After the noise of the observation: for what else a step draws."""


@dataclass(eq=False)
class Problems:
    """Draws that depend on the seed and on their number alone.

    Args:
        families: Of operators.
        pictures: Clean ones.
        seed: Of all draws.
        size: Side of the pictures.
        device: Where they go.
    """

    families: Sequence[Family]
    pictures: Batches
    seed: int
    size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        shares = np.array([family.share for family in self.families])
        self._chances = shares / shares.sum()
        self.waited = 0.0
        """Seconds that steps have waited for pictures."""

    def turn(self, step: int) -> int:
        """Return whose turn a step is, by the families' shares."""
        chance = np.random.default_rng((self.seed, _TURN, step))
        return int(chance.choice(len(self.families), p=self._chances))

    def draw(self, i: int, number: int, rows: Rows) -> tuple[Image, LinearOperator]:
        """Return pictures for family `i`, never those of another draw, and operators for them."""
        first = (number * len(self.families) + i) * rows.total + rows.first
        started = time.perf_counter()
        x = self.pictures.batch(first, rows.count, self.seed).to(self.device)
        self.waited += time.perf_counter() - started
        generator = generator_of(self.seed, _OPERATOR, i, number)
        A = self.families[i].draw(rows.total, self.size, generator)
        return x, of_rows(A, rows.slice, self.device)

    def observed(self, step: int, rows: Rows, purpose: int) -> Observed:
        """Return a step's pictures with noisy observations; draws of a `purpose` are its own."""
        i = self.turn(step)
        family = self.families[i]
        x, A = self.draw(i, step, rows)
        generator = generator_of(self.seed, purpose, step, device=self.device)
        clean = A(x)
        noise = rows.normal(tuple(clean.shape[1:]), generator).to(clean)
        return Observed(family, x, corrupt(A, clean, family.sigma_y, noise), generator)
