"""The denoising loss, equation (4), with the weights of EDM."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lavps_cli.core.types import Image
from lavps_cli.data.prefetch import Prefetch
from lavps_cli.models.preconditioning import RATIO_MAX, RATIO_MIN, SIGMA_DATA, c_noise
from lavps_cli.training.log import Numbers
from lavps_cli.training.rows import Batches, Rows, generator_of, whole

_PURPOSE = 1


def denoising_loss(
    network: nn.Module,
    x: Image,
    generator: Generator,
    *,
    rows: Rows | None = None,
    log_mean: float = -0.4,
    log_std: float = 1.4,
    autocast: torch.dtype | None = None,
) -> tuple[Tensor, Numbers]:
    """Return the loss, and its values by quarter of the noise levels.

    The noise ratio sigma_t / alpha_t is log-normal, one draw per image and stratified over the
    batch; the weight makes the network's target of unit variance at every level.
    """
    rows = whole(len(x)) if rows is None else rows
    place = torch.arange(rows.total, device=generator.device)[rows.slice]
    quantile = (place + rows.uniform(generator)) / rows.total
    w = rows.normal(tuple(x.shape[1:]), generator).to(x)
    log_ratio = log_mean + log_std * torch.special.ndtri(quantile.clamp(1e-5, 1 - 1e-5))
    ratio = log_ratio.exp().clamp(RATIO_MIN, RATIO_MAX).to(x)
    r = ratio.view(-1, 1, 1, 1)
    norm = torch.rsqrt(r**2 + SIGMA_DATA**2)
    xt = x + r * w
    target = (x - SIGMA_DATA**2 * norm**2 * xt) / (r * SIGMA_DATA * norm)
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        raw = network(norm * xt, c_noise(ratio))
    each = (raw.float() - target).square().mean((1, 2, 3))
    quarter = (4 * quantile).long().clamp_max(3)
    numbers = {f"loss_q{i}": each.detach()[quarter == i] for i in range(4)}
    return each.mean(), numbers | {"loss": each.detach()}


@dataclass(eq=False)
class PriorObjective:
    """The loss (4) on batches of pictures.

    Args:
        network: What is trained.
        pictures: By size; the sizes take turns.
        sizes: The turns. Larger pictures come in smaller batches, of as many pixels.
        rows: Of each part of a step, for the first size.
    """

    network: nn.Module
    pictures: dict[int, Batches]
    sizes: tuple[int, ...]
    rows: list[Rows]
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        self._ahead: Prefetch[Image] | None = None
        self._next = -1

    @property
    def methods(self) -> tuple[str, ...]:
        return ()

    @property
    def waited(self) -> float:
        return 0.0 if self._ahead is None else self._ahead.waited

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        index = step * len(self.rows) + part
        if self._ahead is None or index != self._next:
            self._ahead = Prefetch(self._batch, count(index))
        x, self._next = next(self._ahead), index + 1
        rows = self._rows(step, part)
        generator = generator_of(self.seed, _PURPOSE, step, device=self.device)
        return denoising_loss(
            self.network, x.to(self.device), generator, rows=rows, autocast=self.autocast
        )

    def close(self) -> None:
        """Stop making batches ahead."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = None

    def _rows(self, step: int, part: int) -> Rows:
        return scaled(self.rows[part], self.sizes[step % len(self.sizes)] // self.sizes[0])

    def _batch(self, index: int) -> Image:
        step, part = divmod(index, len(self.rows))
        rows = self._rows(step, part)
        pictures = self.pictures[self.sizes[step % len(self.sizes)]]
        return pictures.batch(step * rows.total + rows.first, rows.count, self.seed)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is kept from step to step."""


def scaled(rows: Rows, factor: int) -> Rows:
    """Return the rows of a batch of pictures `factor` times as large, with as many pixels."""
    count = max(rows.count // factor**2, 1)
    return Rows(rows.first // rows.count * count, count, rows.total // rows.count * count)
