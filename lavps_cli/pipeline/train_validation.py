"""The loss on pictures that are not trained on, while a training runs."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lavps_cli.pipeline.stages.stage import Setup
from lavps_cli.pipeline.train_setup import objective_of
from lavps_cli.training.log import Line
from lavps_cli.training.rows import Batches, whole

VALIDATION = "validation.jsonl"
BATCH = 32
STEPS = 48
"""Of the objective, each on a batch; a family of operators has its share of them."""


@torch.no_grad()
def validate(
    setup: Setup,
    run: Path,
    pictures: dict[int, Batches],
    *,
    step: int,
    average: nn.Module,
) -> Line:
    """Measure the averaged network, always on the same draws, and return the line.

    It has the names of metrics.jsonl, and goes to validation.jsonl.

    Args:
        setup: Of the training.
        run: Its folder.
        pictures: By size.
        step: Of the training.
        average: The network.
    """
    rows = [whole(min(setup.request.batch_size, BATCH))]
    found: dict[str, list[Tensor]] = {}
    with objective_of(replace(setup, network=average, rows=rows), pictures) as objective:
        for i in range(STEPS):
            for name, values in objective.loss(i, 0)[1].items():
                found.setdefault(name, []).append(values.double().flatten().cpu())
    line: Line = {"step": step}
    line |= {name: float(torch.cat(values).mean()) for name, values in found.items()}
    with (run / VALIDATION).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line
