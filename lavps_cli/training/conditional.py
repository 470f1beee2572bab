"""The objective of the conditional stage: the denoising loss of a network that sees y and A."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavps_cli.models.conditional import Given
from lavps_cli.models.hdit import HDiT
from lavps_cli.training.denoising import denoising_loss
from lavps_cli.training.log import Numbers
from lavps_cli.training.problems import Problems
from lavps_cli.training.rows import Rows

_NOISE = 6


@dataclass(eq=False)
class ConditionalObjective:
    """The loss (4) given the observation; families of operators take turns.

    Args:
        network: What is trained.
        problems: Pictures and operators.
        rows: Of each part of a step.
        autocast: Precision of the network's inside.
    """

    network: HDiT
    problems: Problems
    rows: list[Rows]
    autocast: torch.dtype | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        return ()

    @property
    def waited(self) -> float:
        return self.problems.waited

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        rows = self.rows[part]
        seen = self.problems.observed(step, rows, _NOISE)
        given = Given(self.network, seen.likelihood)
        value, numbers = denoising_loss(
            given, seen.x, seen.generator, rows=rows, autocast=self.autocast
        )
        return value, dict(numbers) | {f"loss_{seen.family.name}": numbers["loss"]}

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is kept from step to step."""
