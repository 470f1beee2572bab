"""PSNR and SSIM for the kinds of damage that the other tables leave out, and the last data step.

    python benchmarks/damages.py OUT.jsonl --pictures DIR [--size 128] [--preset fast]

What `lavps restore --simulate` does: pictures are damaged as flags say, and restored by the
bundled weights; one sample and the mean of four. "Observation" is what a viewer shows: the decoded
JPEG, the grey picture, the clipped one undone by its gain. One line a picture, damage and variant
is appended to OUT.jsonl, lines already there are not computed again, and a table of the means is
printed.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import torch
from problems import folder

from lavps_cli.core.types import Image
from lavps_cli.images.picture import Picture, quantised
from lavps_cli.images.reading import load_picture
from lavps_cli.metrics.psnr import psnr
from lavps_cli.metrics.ssim import ssim
from lavps_cli.pipeline.damage import Degraded, degrade_picture
from lavps_cli.pipeline.model import Tiling, open_weights
from lavps_cli.pipeline.requests import Compute, Problem
from lavps_cli.pipeline.sampling import draw, sampler_options

SAMPLES = 4
DAMAGES = {
    **{f"jpeg {q}": Problem(task="jpeg", jpeg_quality=q) for q in (10, 20, 50, 75)},
    **{f"denoise {s}": Problem(task="denoise", noise=s) for s in ("0.01", "0.02", "0.05", "0.1")},
    **{f"poisson {n}": Problem(task="denoise", noise=f"poisson:{n}") for n in (20, 100)},
    **{f"deblur 15, {s}": Problem(kernel="15", noise=s) for s in ("0.01", "0.05")},
    **{f"sr 2, {s}": Problem(scale=2, noise=s) for s in ("0.01", "0.05")},
    "sr 4 gaussian": Problem(scale=4, downsample="gaussian:9@1.6", noise="0.01"),
    "deblur 15 + pixels": Problem(kernel="15", mask="pixels", noise="0.01"),
    "declip 2": Problem(gain=2.0, noise="0.01"),
    "colorize": Problem(task="colorize", noise="0.01"),
}


def shown(made: Degraded) -> Image | None:
    """Return what a viewer shows of a damaged picture, None where it is not of its size."""
    y, clean = made.observation.y, made.clean
    if made.jpeg is not None:
        return load_picture(made.jpeg, "").pixels
    if made.record.gain is not None:
        return y / made.record.gain
    return y.expand_as(clean) if y.shape[-2:] == clean.shape[-2:] else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--preset", default="fast")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.out.open()] if given.out.exists() else []
    have = {(row["picture"], row["damage"], row["data_step"]) for row in rows}
    model = open_weights(Compute(device="cpu")).model(Tiling(0, 0))
    for name, x in folder(given.pictures, given.size):
        for damage, problem in DAMAGES.items():
            made = degrade_picture(Picture(quantised(x)), name, problem, 0)
            seen, clean = made.observation, made.observation.seen(made.clean)
            for step in ("true", "false"):
                if (name, damage, step) in have:
                    continue
                options = sampler_options(
                    "lavps", given.preset, (f"data_step={step}",), model.switch_ratio
                )
                drawn = draw(
                    model, seen.likelihood(seen.y), options, method="lavps",
                    shape=(3, *seen.shape), seeds=range(SAMPLES),
                ).x  # fmt: skip
                if step == "true":
                    drawn = seen.explained(drawn)
                drawn = seen.seen(drawn).clamp(-1, 1)
                found = {"one": drawn[:1], "mean": drawn.mean(0, keepdim=True)}
                seen_so = shown(made)
                if seen_so is not None:
                    found["observation"] = seen.seen(seen_so).clamp(-1, 1)
                scores = {
                    key: [float(psnr(each, clean)), float(ssim(each, clean))]
                    for key, each in found.items()
                }
                row = {"picture": name, "damage": damage, "data_step": step, "scores": scores}
                rows.append(row)
                with given.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    table(rows)


def table(rows: list[dict[str, object]]) -> None:
    """Print the means over pictures as Markdown, PSNR / SSIM."""
    print("| damage | observation | one sample | mean of 4 | without the data step | mean of 4 |")
    print("|---|---|---|---|---|---|")
    for damage in DAMAGES:
        cells = []
        for step, key in (("true", "observation"), ("true", "one"), ("true", "mean"),
                          ("false", "one"), ("false", "mean")):  # fmt: skip
            found = [
                row["scores"][key]
                for row in rows
                if (row["damage"], row["data_step"]) == (damage, step) and key in row["scores"]
            ]
            pairs = [mean(column) for column in zip(*found, strict=True)]
            cells.append(f"{pairs[0]:.2f} / {pairs[1]:.3f}" if pairs else "-")
        print(f"| {damage} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
