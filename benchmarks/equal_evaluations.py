"""LAVPS against MGDM at equal network evaluations, on the bundled weights.

    python benchmarks/equal_evaluations.py [--size 64] [--units 100,200] [--distance FILE.py]

A unit is one forward evaluation; a backward one counts as two, an evaluation of the inference
model as one of the prior's (it is smaller). For each budget every method gets the number of steps
that fits. Operators the inference model never saw: sr8, deblur35 (larger than its kernels), pixels
(denser than its masks).
"""

import argparse
from pathlib import Path

import torch
from problems import CPU, problem, psnr
from sampler_options import crops, load_distance

from lavps_cli.core.denoiser import CountedDenoiser
from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.noise import Noise
from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.core.step import Step
from lavps_cli.core.variational import Context
from lavps_cli.samplers.lavps import LavpsOptions, lavps
from lavps_cli.weights.checkpoint import load_denoiser, load_inference
from lavps_cli.weights.index import beside_of, resolve

SEEN, UNSEEN = ("sr4", "deblur21", "centre"), ("sr8", "deblur35", "pixels")
# Gradient steps outside and inside script-T, where script-T begins and ends (None: no inference
# model), and the mean units a diffusion step takes.
METHODS: dict[str, tuple[int, int, tuple[float, float] | None, float]] = {
    "MGDM G=1": (1, 1, None, 4),
    "MGDM G=2": (2, 2, None, 7),
    "LAVPS 0.5-1": (2, 0, (0.5, 1.0), 5),
    "LAVPS 0-1": (0, 0, (0.0, 1.0), 3),
    "LAVPS 0-0.8": (1, 0, (0.0, 0.8), 3.2),
    "LAVPS 0-0.7": (2, 0, (0.0, 0.7), 4.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--units", default="100,200")
    parser.add_argument("--tasks", default=",".join(SEEN + UNSEEN))
    parser.add_argument("--distance", type=Path)
    given = parser.parse_args()
    home = resolve(given.model)
    autocast = torch.bfloat16 if multiplies_bf16(CPU) else None
    denoiser = load_denoiser(home, device=CPU, autocast=autocast)
    beside = beside_of(home)
    assert beside is not None
    model = load_inference(beside, device=CPU, autocast=autocast)
    distance = load_distance(given.distance)
    x = crops(given.size)
    tasks = given.tasks.split(",")
    print(
        f"{'units':>6} {'method':<10} {'K':>4} {'took':>5}  " + "  ".join(f"{t:>14}" for t in tasks)
    )
    for units in map(int, given.units.split(",")):
        for name, (start, end, used, cost) in METHODS.items():
            num_steps = 2 + int(units / cost)
            switch_ratio, switch_back = used or (0.0, 1.0)
            options = LavpsOptions(
                num_steps=num_steps,
                grad_steps_start=start,
                grad_steps_end=end,
                switch_ratio=switch_ratio,
                switch_back=switch_back,
            )
            cells, took = [], 0.0
            for task in tasks:
                counted, calls, accepted = CountedDenoiser(denoiser, len(x)), [0], []

                def inference(c: Context, calls: list[int] = calls) -> DiagonalGaussian:
                    calls[0] += 1
                    return model(c)

                def step(state: Step, accepted: list[float] = accepted) -> None:
                    if state.accepted is not None:
                        accepted.append(float(state.accepted.float().mean()))

                xhat = lavps(
                    counted, problem(task, x), options, shape=tuple(x.shape),
                    noise=Noise(range(len(x)), CPU), inference=inference if used else None,
                    on_step=step,
                )  # fmt: skip
                took = counted.nfe + 2 * counted.nbe + calls[0]
                far = "" if distance is None else f"{float(distance(xhat, x).mean()):5.2f}"
                kept = f"{sum(accepted) / len(accepted):3.0%}" if accepted else ""
                cells.append(f"{psnr(xhat, x):5.2f} {far} {kept:>4}")
            print(
                f"{units:6} {name:<10} {num_steps:4} {took:5.0f}  " + "  ".join(cells), flush=True
            )


if __name__ == "__main__":
    main()
