"""Standard normal draws, one generator per image, so that no image depends on its batch."""

from collections.abc import Sequence

import torch

from lavps_cli.core.types import Image


class Noise:
    """One generator per image.

    Drawn on the CPU and moved: a seed gives the same numbers on every device.

    Args:
        seeds: One integer per image of the batch.
        device: Where the draws are delivered.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.device = device
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def fork(self) -> "Noise":
        """Return one that draws what this one would draw next."""
        other = Noise([], self.device)
        other._generators = [generator.clone_state() for generator in self._generators]
        return other

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Image:
        """Return standard normal pictures, one per generator; `shape` is that of one picture."""
        rows = [torch.randn(shape, generator=g, dtype=dtype) for g in self._generators]
        return torch.stack(rows).to(self.device)

    def normal_like(self, x: Image) -> Image:
        """Return a standard normal draw of the shape and type of `x`."""
        return self.normal(tuple(x.shape[1:]), x.dtype)

    def poisson(self, rate: Image) -> Image:
        """Return draws of Poisson's law with these rates, one generator per image."""
        rows = zip(rate.cpu(), self._generators, strict=True)
        return torch.stack([torch.poisson(row, generator=g) for row, g in rows]).to(self.device)

    def some_like(self, x: Image, rows: Sequence[bool]) -> Image:
        """Return the same for some images only: the others get zeros, and nothing is drawn."""
        if all(rows):
            return self.normal_like(x)
        w = torch.zeros(x.shape, dtype=x.dtype)
        for i, row in enumerate(rows):
            if row:
                w[i] = torch.randn(x.shape[1:], generator=self._generators[i], dtype=x.dtype)
        return w.to(self.device)
