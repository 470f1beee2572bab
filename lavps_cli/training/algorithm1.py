"""The objective of the inference stage: families of operators take turns at Algorithm 1."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image
from lavps_cli.models.inference import AmortisedInference
from lavps_cli.training.amortisation import gain_over_bridge, inference_loss
from lavps_cli.training.contexts import Trajectories
from lavps_cli.training.log import Numbers
from lavps_cli.training.problems import Problems
from lavps_cli.training.processes import gathered
from lavps_cli.training.rows import Rows, generator_of

_NOISE = 3

GAIN_EVERY = 16
"""Steps from one measurement of the gain over the bridge to the next."""


@dataclass(eq=False)
class InferenceObjective:
    """Algorithm 1 on pictures and operators.

    Args:
        model: The inference model; its network is trained.
        denoiser: The frozen prior.
        problems: Pictures and operators; each family has its own trajectories.
        rows: Of each part of a step.
        switch_ratio: Contexts are drawn at t <= 1 - switch_ratio.
    """

    model: AmortisedInference
    denoiser: Denoiser
    problems: Problems
    rows: list[Rows]
    switch_ratio: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.problems.families)
        self._runs = [[self._trajectories(i, rows) for rows in self.rows] for i in range(count)]

    @property
    def network(self) -> nn.Module:
        return self.model.network

    @property
    def waited(self) -> float:
        return self.problems.waited

    @property
    def methods(self) -> tuple[str, ...]:
        return ("features",)

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        i = self.problems.turn(step)
        name = self.problems.families[i].name
        numbers: dict[str, Tensor] = {}
        if step % GAIN_EVERY == 0:
            numbers |= gain_over_bridge(self.model.predict, self._runs[i][part])
            numbers[f"ratio_{name}"] = numbers["ratio"]
        value, more = inference_loss(self.model.predict, self._runs[i][part])
        return value, numbers | dict(more) | {f"loss_{name}": more["loss"]}

    def state(self) -> dict[str, Any]:
        """Return the state of all trajectories, with the rows of the whole batch."""
        return {
            str(i): _joined(gathered([run.state() for run in runs]))
            for i, runs in enumerate(self._runs)
        }

    def load(self, state: dict[str, Any]) -> None:
        for i, runs in enumerate(self._runs):
            for run in runs:
                run.load(state[str(i)])

    def _trajectories(self, i: int, rows: Rows) -> Trajectories:
        problems = self.problems

        def problem(draw: int) -> tuple[Image, LinearOperator]:
            return problems.draw(i, draw, rows)

        return Trajectories(
            self.denoiser,
            problem,
            sigma_y=problems.families[i].sigma_y,
            rows=rows,
            generator=generator_of(problems.seed, _NOISE, i, device=problems.device),
            highest=1 - self.switch_ratio,
        )


def _joined(states: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Return one state from those of all parts of all processes, in the order of their rows."""
    parts = [part for own in states for part in own]
    return {
        name: parts[0][name].cpu()
        if name in ("age", "generator")
        else torch.cat([part[name].cpu() for part in parts])
        for name in parts[0]
    }
