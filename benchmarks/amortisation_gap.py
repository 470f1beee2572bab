"""How near Algorithm 1 brings the start to the optimum, where the optimum is known.

    python benchmarks/amortisation_gap.py [--steps 1500]

Gaussian prior N(0, 0.25 I), pictures of 8x8, masks with 30 to 70 % missing pixels, super-resolution
by 2 and denoising, sigma_y = 0.1, flow schedule. Printed is (J(start) - J*) / (J(bridge) - J*) by
quarter of the time, on new pictures: sums over pictures, J exact (`models/oracle.py`). 0 is
perfect, 1 is no better than zero-shot.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.types import Image
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.hdit import HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import COND_WIDTH, AmortisedInference, InferenceNetwork
from lavps_cli.models.oracle import exact_objective, exact_optimum
from lavps_cli.training.algorithm1 import InferenceObjective
from lavps_cli.training.families import parse_families
from lavps_cli.training.log import Log
from lavps_cli.training.loop import Hooks, TrainOptions, fit
from lavps_cli.training.rows import generator_of, whole

FAMILIES = "inpaint:pixels@0.3-0.7+0.1,sr:2+0.1,denoise+0.1"
CONFIG = HDiTConfig(
    levels=(LevelConfig(depth=2, width=64, d_ff=128, d_head=32, attention="global"),),
    patch_size=1, rope_extent=8, in_channels=9, out_channels=9, mapping_cond_dim=COND_WIDTH,
    mapping_width=64, mapping_d_ff=128,
)  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """Pictures of the prior."""

    def batch(self, first: int, count: int, seed: int) -> Image:
        return 0.5 * torch.randn(count, 3, 8, 8, generator=generator_of(seed, 99, first))


def objective_of(model: AmortisedInference, seed: int) -> InferenceObjective:
    prior = GaussianPrior(torch.zeros(3, 8, 8), 0.25, SCHEDULES["flow"])
    return InferenceObjective(
        model, prior, parse_families(FAMILIES, 8), Draws(), [whole(32)], seed=seed, size=8
    )


@torch.no_grad()
def gaps(model: AmortisedInference, rounds: int = 8) -> dict[str, list[float]]:
    """Return the gap by family and quarter of the time."""
    objective = objective_of(model, seed=1)
    prior = objective.denoiser
    assert isinstance(prior, GaussianPrior)
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for i, family in enumerate(objective.families):
        trajectories = objective._runs[i][0]
        for _ in range(rounds):
            c = trajectories.draw()
            q, shift = model.predict(c)
            best = exact_objective(exact_optimum(c, prior), c, prior)
            left = exact_objective(q, c, prior) - best
            before = exact_objective(c.bridge, c, prior) - best
            trajectories.advance(c, q, shift)
            for j, part in enumerate((4 * c.t).long().clamp_max(3).tolist()):
                for key in ((family.name, part), ("all", part)):
                    sums[key][0] += float(left[j])
                    sums[key][1] += float(before[j])
    names = [*(family.name for family in objective.families), "all"]
    return {n: [sums[n, i][0] / max(sums[n, i][1], 1e-9) for i in range(4)] for n in names}


def show(title: str, found: dict[str, list[float]]) -> None:
    for name, values in found.items():
        print(f"| {title} | {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lr", type=float, default=2e-3)
    given = parser.parse_args()
    network = InferenceNetwork(CONFIG)
    model = AmortisedInference(network, SCHEDULES["flow"])
    print("| | family | t < 1/4 | 1/4-1/2 | 1/2-3/4 | > 3/4 |\n|---|---|---|---|---|---|")
    show("before", gaps(model))
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        run = Path(folder)
        options = TrainOptions(num_steps=given.steps, lr=given.lr, warmup=50, save_every=10**9)
        hooks = Hooks(lambda folder, average, step: None)
        trained = fit(objective_of(model, seed=0), options, run, Log(run / "log.jsonl"), hooks)
    average = trained.average
    assert isinstance(average, InferenceNetwork)
    seconds = time.monotonic() - started
    show(f"after {given.steps}", gaps(AmortisedInference(average, SCHEDULES["flow"])))
    print(f"{seconds:.0f} s of training")


if __name__ == "__main__":
    main()
