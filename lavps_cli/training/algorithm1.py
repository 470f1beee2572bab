"""The objective of the inference stage: families of operators take turns at Algorithm 1."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image
from lavps_cli.models.inference import AmortisedInference
from lavps_cli.operators.per_picture import of_rows
from lavps_cli.training.amortisation import gain_over_bridge, inference_loss
from lavps_cli.training.contexts import Trajectories
from lavps_cli.training.families import Family
from lavps_cli.training.log import Numbers
from lavps_cli.training.processes import gathered
from lavps_cli.training.rows import Batches, Rows, generator_of

_TURN, _NOISE, _OPERATOR = 2, 3, 4

GAIN_EVERY = 16
"""Steps from one measurement of the gain over the bridge to the next."""


@dataclass(eq=False)
class InferenceObjective:
    """Algorithm 1 on pictures and operators.

    Args:
        model: The inference model; its network is trained.
        denoiser: The frozen prior.
        families: Of operators; each has its own trajectories.
        pictures: Clean ones.
        rows: Of each part of a step.
        size: Side of the pictures.
        switch_ratio: Contexts are drawn at t <= 1 - switch_ratio.
    """

    model: AmortisedInference
    denoiser: Denoiser
    families: Sequence[Family]
    pictures: Batches
    rows: list[Rows]
    seed: int
    size: int
    switch_ratio: float = 0.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self._runs = [
            [self._trajectories(i, rows) for rows in self.rows] for i in range(len(self.families))
        ]
        shares = np.array([family.share for family in self.families])
        self._chances = shares / shares.sum()
        self.waited = 0.0

    @property
    def network(self) -> nn.Module:
        return self.model.network

    @property
    def methods(self) -> tuple[str, ...]:
        return ("features",)

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        turn = np.random.default_rng((self.seed, _TURN, step))
        i = int(turn.choice(len(self.families), p=self._chances))
        numbers: dict[str, Tensor] = {}
        if step % GAIN_EVERY == 0:
            numbers |= gain_over_bridge(self.model.predict, self._runs[i][part])
            numbers[f"ratio_{self.families[i].name}"] = numbers["ratio"]
        value, more = inference_loss(self.model.predict, self._runs[i][part])
        return value, numbers | dict(more) | {f"loss_{self.families[i].name}": more["loss"]}

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
        def problem(draw: int) -> tuple[Image, LinearOperator]:
            return self._problem(i, draw, rows)

        return Trajectories(
            self.denoiser,
            problem,
            sigma_y=self.families[i].sigma_y,
            rows=rows,
            generator=generator_of(self.seed, _NOISE, i, device=self.device),
            highest=1 - self.switch_ratio,
        )

    def _problem(self, i: int, draw: int, rows: Rows) -> tuple[Image, LinearOperator]:
        """Return new pictures for the trajectories of one family, and operators for them."""
        first = (draw * len(self.families) + i) * rows.total + rows.first
        started = time.perf_counter()
        x = self.pictures.batch(first, rows.count, self.seed).to(self.device)
        self.waited += time.perf_counter() - started
        generator = generator_of(self.seed, _OPERATOR, i, draw)
        A = self.families[i].draw(rows.total, self.size, generator)
        return x, of_rows(A, rows.slice, self.device)


def _joined(states: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Return one state from those of all parts of all processes, in the order of their rows."""
    parts = [part for own in states for part in own]
    return {
        name: parts[0][name].cpu()
        if name in ("age", "generator")
        else torch.cat([part[name].cpu() for part in parts])
        for name in parts[0]
    }
