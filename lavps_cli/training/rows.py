"""Which pictures of a batch a process works on, and randomness that does not depend on it.

Every draw is a function of the seed, the step and the place in the whole batch. A run that is
resumed, or spread over another number of processes, so makes the same draws. Noise is drawn on the
device that computes: a CPU draws fewer pictures of it a second than a GPU trains on.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor

from lavps_cli.core.types import Image


@runtime_checkable
class Batches(Protocol):
    """Pictures without end, by number."""

    def batch(self, first: int, count: int, seed: int) -> Image:
        """Return pictures `first` to `first + count - 1` of the endless series of that seed."""


@dataclass(frozen=True)
class Rows:
    """Rows `first` to `first + count - 1` of a batch of `total` pictures."""

    first: int
    count: int
    total: int

    @property
    def slice(self) -> slice:
        return slice(self.first, self.first + self.count)

    def normal(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return these rows of a standard normal draw; `shape` is that of one row."""
        every = (self.total, *shape)
        return torch.randn(every, generator=generator, device=generator.device)[self.slice]

    def uniform(self, generator: Generator, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return these rows of a uniform draw, one number each."""
        every = torch.rand(self.total, generator=generator, dtype=dtype, device=generator.device)
        return every[self.slice]


def whole(count: int) -> Rows:
    """Return all rows of a batch."""
    return Rows(0, count, count)


def shares(total: int, rank: int, world: int, parts: int) -> list[Rows]:
    """Return the rows of one process, cut into `parts` that are worked on one after the other."""
    count = total // (world * parts)
    assert count * world * parts == total
    return [Rows((rank * parts + part) * count, count, total) for part in range(parts)]


def generator_of(*key: int, device: torch.device | None = None) -> Generator:
    """Return a generator for a key of whole numbers, such as (seed, purpose, step)."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device or "cpu").manual_seed(int(seed >> np.uint64(1)))
