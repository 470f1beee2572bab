"""PSNR and SSIM of one sample and of the mean of eight, beside the best classical alternative.

    python benchmarks/restoration_table.py OUT.jsonl [--pictures DIR] [--size 256] [--preset NAME]

Without DIR the pictures are scikit-image's astronaut, chelsea and coffee. Classical methods get
the parameter that is best on each picture, by looking at the clean one; ours get none. One line a
picture and task is appended to OUT.jsonl, lines already there are not computed again, and a table
of all lines is printed.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from problems import TASKS, folder, photographs, problem, psnr
from skimage.restoration import denoise_tv_chambolle, inpaint_biharmonic
from torch.nn import functional as F

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.types import Image
from lavps_cli.metrics.ssim import ssim
from lavps_cli.pipeline.model import Tiling, open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sampling import draw, sampler_options

SAMPLES = 8
TV_WEIGHTS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2)
WIENER_LAM = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def tv(x: Image, weight: float) -> Image:
    """Return total-variation denoising (Chambolle) of one picture."""
    pixels = (x[0].permute(1, 2, 0).numpy() + 1) / 2
    smooth = denoise_tv_chambolle(pixels, weight=weight, channel_axis=-1)
    return torch.from_numpy(smooth).permute(2, 0, 1)[None].float() * 2 - 1


def observation(task: str, likelihood: Likelihood) -> Image:
    """Return the observation at the size of the picture; bicubic enlargement for sr."""
    if task.startswith("sr"):
        scale = int(task[2:])
        return F.interpolate(likelihood.y, scale_factor=scale, mode="bicubic", antialias=False)
    return likelihood.y


def classical(task: str, likelihood: Likelihood) -> Iterator[tuple[str, Image]]:
    """Yield every candidate: Wiener-type inverses, total variation, biharmonic inpainting."""
    seen = observation(task, likelihood)
    if task.startswith("deblur"):
        for lam in WIENER_LAM:
            wiener = likelihood.A.ridge(likelihood.y, lam)
            yield f"wiener {lam}", wiener
            for weight in TV_WEIGHTS:
                yield f"wiener {lam} + tv {weight}", tv(wiener, weight)
        return
    if not task.startswith("sr"):
        hole = (likelihood.A.measured(likelihood.y)[0, 0] == 0).numpy()
        pixels = (seen[0].permute(1, 2, 0).numpy() + 1) / 2
        filled = inpaint_biharmonic(pixels.astype(np.float64), hole, channel_axis=-1)
        seen = torch.from_numpy(filled).permute(2, 0, 1)[None].float() * 2 - 1
    yield "bicubic" if task.startswith("sr") else "biharmonic", seen
    for weight in TV_WEIGHTS:
        yield f"+ tv {weight}", tv(seen, weight)


def scores(xhat: Image, x: Image) -> dict[str, float]:
    return {"psnr": psnr(xhat, x), "ssim": float(ssim(xhat.clamp(-1, 1), x))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--method", default="lavps")
    parser.add_argument("--model", default="default")
    parser.add_argument("-O", "--option", action="append", default=[])
    parser.add_argument("--tasks", default=",".join(TASKS))
    given = parser.parse_args()
    done = (
        [json.loads(line) for line in given.out.read_text().splitlines()]
        if given.out.exists()
        else []
    )
    have = {(row["picture"], row["task"]) for row in done}
    weights = open_weights(Compute(model=given.model, device="cpu", dtype="bf16"), given.method)
    model = weights.model(Tiling(0, 0))
    options = sampler_options(given.method, given.preset, given.option, model.switch_ratio)
    pictures = (
        photographs(given.size) if given.pictures is None else folder(given.pictures, given.size)
    )
    for name, x in pictures:
        for task in given.tasks.split(","):
            if (name, task) in have:
                continue
            likelihood = problem(task, x)
            best, best_name = max(
                ((xhat, label) for label, xhat in classical(task, likelihood)),
                key=lambda pair: psnr(pair[0], x),
            )
            started = time.perf_counter()
            drawn = draw(
                model, likelihood, options, method=given.method, shape=tuple(x.shape[1:]),
                seeds=range(SAMPLES),
            )  # fmt: skip
            draws = drawn.x
            row = {
                "picture": name, "task": task, "preset": given.preset, "classical": best_name,
                "seconds": (time.perf_counter() - started) / SAMPLES,
                "nfe": drawn.nfe, "nbe": drawn.nbe,
                "scores": {
                    "observation": scores(observation(task, likelihood), x),
                    "best classical": scores(best, x),
                    "one sample": scores(draws[:1], x),
                    "mean of 8": scores(draws.mean(0, keepdim=True), x),
                },
            }  # fmt: skip
            done.append(row)
            with given.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(name, task, {k: round(v["psnr"], 2) for k, v in row["scores"].items()},
                  best_name, f"{row['seconds']:.1f} s", flush=True)  # fmt: skip
    table(done)


def table(rows: list[dict[str, object]]) -> None:
    """Print the rows as Markdown, PSNR / SSIM, and the mean by task."""
    columns = ("observation", "best classical", "one sample", "mean of 8")
    print("| task | picture | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        for row in of_task:
            cells = [
                f"{s['psnr']:.2f} / {s['ssim']:.3f}" for s in (row["scores"][c] for c in columns)
            ]
            print(f"| {task} | {row['picture']} | " + " | ".join(cells) + " |")
        means = [
            f"{np.mean([r['scores'][c]['psnr'] for r in of_task]):.2f} / "
            f"{np.mean([r['scores'][c]['ssim'] for r in of_task]):.3f}" for c in columns
        ]  # fmt: skip
        print(f"| **{task}** | **mean of {len(of_task)}** | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
