"""The loss on pictures that are not trained on, while a training runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from lavps_cli.models.hdit import HDiT
from lavps_cli.models.inference import InferenceNetwork
from lavps_cli.pipeline.train_setup import Setup, objective_of
from lavps_cli.training.denoising import PriorObjective
from lavps_cli.training.log import Line
from lavps_cli.training.rows import Batches, whole

VALIDATION = "validation.jsonl"
STEPS = 48
"""Of the objective, each on a batch; a family of operators has its share of them."""


def validation(
    setup: Setup, run: Path, pictures: dict[int, Batches], count: int
) -> Callable[[int, nn.Module], Line]:
    """Return what measures the averaged network, always on the same draws.

    Its lines, with the names of metrics.jsonl, go to validation.jsonl.

    Args:
        setup: Of the training.
        run: Its folder.
        pictures: By size.
        count: Pictures a batch.
    """

    @torch.no_grad()
    def measure(step: int, average: nn.Module) -> Line:
        network = cast(HDiT | InferenceNetwork, average)
        objective = objective_of(replace(setup, network=network, rows=[whole(count)]), pictures)
        found: dict[str, list[Tensor]] = {}
        for i in range(STEPS):
            for name, values in objective.loss(i, 0)[1].items():
                found.setdefault(name, []).append(values.double().flatten().cpu())
        if isinstance(objective, PriorObjective):
            objective.close()
        line: Line = {"step": step}
        line |= {name: float(torch.cat(values).mean()) for name, values in found.items()}
        with (run / VALIDATION).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return line

    return measure
