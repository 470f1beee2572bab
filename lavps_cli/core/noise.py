"""Standard normal draws, one generator per image, so that no image depends on its batch."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from lavps_cli.core.types import Image

AHEAD_NUMBERS = 1 << 21
"""So many are drawn ahead at most, 8 draws of a picture of 256x256, but one draw in any case."""
MOST_AHEAD = 8
PINNED_NUMBERS = 1 << 24
"""Larger draws are not put into memory that the system may not move."""

_Kind: TypeAlias = tuple[torch.Size, torch.dtype]


class Noise:
    """One generator per image.

    Drawn on the CPU and moved: a seed gives the same numbers on every device.

    Args:
        seeds: One integer per image of the batch.
        device: Where the draws are delivered.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.device = device
        self._streams = [_Stream(torch.Generator().manual_seed(seed), device) for seed in seeds]

    def fork(self) -> "Noise":
        """Return one that draws what this one would draw next."""
        other = Noise([], self.device)
        other._streams = [_Stream(stream.generator(), self.device) for stream in self._streams]
        return other

    def __len__(self) -> int:
        return len(self._streams)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Image:
        """Return standard normal pictures, one per generator; `shape` is that of one picture."""
        rows = [stream.draw((torch.Size(shape), dtype)) for stream in self._streams]
        if self.device.type == "cpu":
            return torch.stack(rows)
        out = torch.empty((len(rows), *shape), dtype=dtype, device=self.device)
        for place, row in zip(out, rows, strict=True):
            place.copy_(row, non_blocking=True)
        return out

    def normal_like(self, x: Image) -> Image:
        """Return a standard normal draw of the shape and type of `x`."""
        return self.normal(tuple(x.shape[1:]), x.dtype)

    def poisson(self, rate: Image) -> Image:
        """Return draws of Poisson's law with these rates, one generator per image."""
        rows = [stream.poisson(row) for row, stream in zip(rate.cpu(), self._streams, strict=True)]
        return torch.stack(rows).to(self.device)

    def some_like(self, x: Image, rows: Sequence[bool]) -> Image:
        """Return the same for some images only: the others get zeros, and nothing is drawn."""
        if all(rows):
            return self.normal_like(x)
        w = torch.zeros_like(x)
        for place, stream, row in zip(w, self._streams, rows, strict=True):
            if row:
                place.copy_(stream.draw((x.shape[1:], x.dtype)), non_blocking=True)
        return w


class _Stream:
    """The draws of one image, in turn; beside a device that computes they are made ahead.

    Ahead are draws of the kind that was asked for twice in a row. Where another kind is asked for,
    the generator is set back to what it was after the last draw that was taken.
    """

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self._generator = generator
        self._ahead = device.type != "cpu"
        self._pins = device.type == "cuda"
        self._kind: _Kind | None = None
        self._ready: deque[tuple[Tensor, Tensor]] = deque()
        self._coming: Future[list[tuple[Tensor, Tensor]]] | None = None

    def generator(self) -> torch.Generator:
        """Return a generator that draws what comes next."""
        self._receive()
        other = self._generator.clone_state()
        if self._ready:
            other.set_state(self._ready[0][0])
        return other

    def draw(self, kind: _Kind) -> Tensor:
        if not self._ahead:
            return self._normal(kind)
        if kind != self._kind:
            self._set_back()
            self._kind = kind
            return self._normal(kind)
        if not self._ready:
            self._receive()
        row = self._ready.popleft()[1] if self._ready else self._normal(kind)
        if self._coming is None:
            self._coming = _threads().submit(self._some, kind)
        return row

    def poisson(self, rate: Tensor) -> Tensor:
        self._set_back()
        return torch.poisson(rate, generator=self._generator)

    def _normal(self, kind: _Kind) -> Tensor:
        shape, dtype = kind
        pinned = self._pins and shape.numel() <= PINNED_NUMBERS
        return torch.randn(shape, generator=self._generator, dtype=dtype, pin_memory=pinned)

    def _some(self, kind: _Kind) -> list[tuple[Tensor, Tensor]]:
        """Return draws, each with the state of the generator before it."""
        count = max(1, min(MOST_AHEAD, AHEAD_NUMBERS // max(kind[0].numel(), 1)))
        return [(self._generator.get_state(), self._normal(kind)) for _ in range(count)]

    def _receive(self) -> None:
        if self._coming is not None:
            self._ready.extend(self._coming.result())
            self._coming = None

    def _set_back(self) -> None:
        self._receive()
        if self._ready:
            self._generator.set_state(self._ready[0][0])
            self._ready.clear()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "noise")
