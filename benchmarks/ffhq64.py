"""An FFHQ prior at 64x64 and its inference model against MGDM: quality by cost, and speedup.

    python benchmarks/ffhq64.py run    FACES OUT.jsonl --distance FILE.py [--over plain]
    python benchmarks/ffhq64.py report OUT.jsonl [--over plain]
    python benchmarks/ffhq64.py table4 FACES OUT.jsonl --distance FILE.py

FACES holds 00000.jpg and so on at 128x128, reduced 2:1 here. sigma_y = 0.05. A unit is a forward
evaluation; a backward one counts two. Every setting appends a line for each picture to OUT.jsonl,
in batches of which methods take turns; what is there is not computed again. The kernels of the
paper (21 and 35 pixels at 256) are scaled to 64: 5 at intensity 0.9 would hardly blur, so 9 at 0.9
is in distribution here, 15 at 0.3 out of it.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PillowImage
from problems import CPU, SIGMA_Y, to_tensor
from sampler_options import load_distance
from scipy import stats

from lavps_cli.core.likelihood import Likelihood, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.metrics.ssim import ssim
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting, centre_mask, pixel_mask, rectangle_mask
from lavps_cli.operators.kernels import motion_kernel
from lavps_cli.operators.per_picture import of_rows
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.pipeline.measuring import device_name
from lavps_cli.pipeline.model import Tiling, open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sampling import draw
from lavps_cli.samplers.lavps import LavpsOptions

SEEN, UNSEEN = ("sr4", "deblur", "centre", "rectangle"), ("pixels", "deblur-ood")


class Setting(NamedTuple):
    """What a row of the tables is drawn with."""

    num_steps: int
    grad_steps_start: int
    grad_steps_end: int
    switch_back: float | None
    """Where script-T ends; None is MGDM."""
    switch_ratio: float = 0.0
    """Where it begins."""
    settle: int = 0
    data_step: bool = False

    @property
    def is_mgdm(self) -> bool:
        return self.switch_back is None

    @property
    def is_plain(self) -> bool:
        """Whether it is LAVPS as printed: starts are predicted late, and compared always."""
        changed = self.settle > 0 or self.data_step
        return self.switch_back == 1 and self.switch_ratio > 0 and not changed

    def __str__(self) -> str:
        name = f"K={self.num_steps} G={self.grad_steps_start}/{self.grad_steps_end}"
        if self.is_mgdm:
            return f"MGDM {name}"
        name = f"LAVPS {name} {self.switch_ratio:g}-{self.switch_back:g}"
        settled = f" settle={self.settle}" if self.settle else ""
        return name + settled + (" data_step" if self.data_step else "")


MGDM = [Setting(*each) for each in [
    (8, 1, 1, None), (16, 1, 1, None), (12, 2, 2, None), (20, 2, 2, None), (30, 1, 1, None),
    (36, 2, 2, None), (60, 2, 2, None),
    (8, 0, 0, 1.0), (15, 0, 0, 1.0), (8, 1, 0, 0.7), (12, 1, 0, 0.7), (12, 1, 0, 0.8),
    (20, 1, 0, 0.7), (20, 1, 0, 0.8), (20, 2, 0, 0.7), (36, 1, 0, 0.75), (36, 2, 0, 0.7),
    (20, 2, 0, 0.5), (16, 1, 1, 0.5), (16, 1, 1, 0.8), (20, 2, 2, 0.5), (20, 2, 2, 0.7),
]]  # fmt: skip
PLAIN = [Setting(*each) for each in [
    (8, 1, 0, 1.0, 0.5), (12, 1, 0, 1.0, 0.5), (20, 1, 0, 1.0, 0.5), (36, 1, 0, 1.0, 0.5),
    (8, 2, 0, 1.0, 0.5), (12, 2, 0, 1.0, 0.5), (20, 2, 0, 1.0, 0.5), (36, 2, 0, 1.0, 0.5),
    (20, 1, 0, 1.0, 0.8), (20, 2, 0, 1.0, 0.8), (36, 1, 0, 1.0, 0.8), (12, 1, 1, 1.0, 0.5),
    (6, 0, 0, 1.0, 0, 3), (8, 0, 0, 1.0, 0, 3), (12, 0, 0, 1.0, 0, 3), (16, 0, 0, 1.0, 0, 3),
    (24, 0, 0, 1.0, 0, 3), (8, 1, 0, 0.7, 0, 3), (12, 1, 0, 0.7, 0, 3), (12, 1, 0, 0.8, 0, 3),
    (12, 1, 0, 0.9, 0, 3), (16, 1, 0, 0.8, 0, 3), (20, 1, 0, 0.8, 0, 3), (20, 1, 0, 0.9, 0, 3),
    (24, 1, 0, 0.9, 0, 3), (36, 1, 0, 0.75, 0, 3), (36, 1, 0, 0.9, 0, 3), (16, 2, 0, 0.7, 0, 3),
    (20, 2, 0, 0.7, 0, 3), (36, 2, 0, 0.8, 0, 3),
    (6, 0, 0, 1.0, 0, 3, True), (8, 0, 0, 1.0, 0, 3, True), (12, 0, 0, 1.0, 0, 3, True),
    (12, 1, 0, 0.8, 0, 3, True), (16, 1, 0, 0.8, 0, 3, True), (20, 1, 0, 0.9, 0, 3, True),
    (36, 1, 0, 0.9, 0, 3, True), (16, 2, 0, 0.7, 0, 0, True),
]]  # fmt: skip
GRIDS = {"MGDM": MGDM, "plain": PLAIN}
"""By what LAVPS is compared with, which is in the grid."""
Row = dict[str, Any]


def face(folder: Path, number: int) -> Image:
    with PillowImage.open(folder / f"{number:05d}.jpg") as file:
        return to_tensor(file.convert("RGB").reduce(2))


def likelihood(task: str, x: Image, numbers: list[int]) -> Likelihood:
    """Return the observations of pictures; masks and noise depend on the number of each."""
    size = x.shape[-1]
    makers = [torch.Generator().manual_seed(n) for n in numbers]
    fixed = torch.Generator().manual_seed(0)
    operators = {
        "sr4": lambda: SuperResolution(4),
        "deblur": lambda: Blur(motion_kernel(9, 0.9, fixed), "circular"),
        "deblur-ood": lambda: Blur(motion_kernel(15, 0.3, fixed), "circular"),
        "centre": lambda: Inpainting(centre_mask(size, size)),
        "rectangle": lambda: Inpainting(
            torch.stack([rectangle_mask(size, size, g) for g in makers])
        ),
        "pixels": lambda: Inpainting(torch.stack([pixel_mask(size, size, g) for g in makers])),
        "pixels9": lambda: Inpainting(
            torch.stack([pixel_mask(size, size, g, 0.9, 0.92) for g in makers])
        ),
    }
    return observe(operators[task](), x, SIGMA_Y, Noise([9000 + n for n in numbers], CPU))


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def batches(first: int, count: int, size: int) -> Iterator[list[int]]:
    for start in range(first, first + count, size):
        yield list(range(start, min(start + size, first + count)))


def measure(
    weights: Any, distance: Any, task: str, x: Image, numbers: list[int], setting: Setting
) -> list[Row]:
    back = 1.0 if setting.is_mgdm else setting.switch_back
    options = LavpsOptions(**setting._asdict() | {"switch_back": back})
    model, device = weights.model(Tiling(0, 0)), weights.device
    seen = likelihood(task, x, numbers)
    A = of_rows(seen.A, slice(None), device)
    drawn = draw(
        model, replace(seen, y=seen.y.to(device), A=A), options,
        method="mgdm" if setting.is_mgdm else "lavps", shape=tuple(x.shape[1:]), seeds=numbers,
        coarse=False,
    )  # fmt: skip
    x, seconds = x.to(device), drawn.seconds / len(x)
    error = (drawn.x.clamp(-1, 1) - x).square().mean((1, 2, 3)) / 4
    psnr, far, like = -10 * error.log10(), distance(drawn.x, x), ssim(drawn.x.clamp(-1, 1), x)
    return [
        {
            "task": task, "setting": list(setting), "number": n, "psnr": float(psnr[i]),
            "distance": float(far[i]), "ssim": float(like[i]), "nfe": drawn.nfe, "nbe": drawn.nbe,
            "units": drawn.nfe + 2 * drawn.nbe, "seconds": seconds, "device": device_name(device),
        }
        for i, n in enumerate(numbers)
    ]  # fmt: skip


def run(given: argparse.Namespace, tasks: list[str], grid: list[Setting]) -> list[Row]:
    weights = open_weights(
        Compute(model=given.model, inference=given.inference, device=given.device)
    )
    distance = load_distance(given.distance)
    rows = read(given.out)
    have = {(r["task"], Setting(*r["setting"]), r["number"]) for r in rows}
    for numbers in batches(given.first, given.images, given.batch):
        x = torch.cat([face(given.faces, n) for n in numbers])
        for task in tasks:
            for setting in grid:
                if all((task, setting, n) in have for n in numbers):
                    continue
                new = measure(weights, distance, task, x, numbers, setting)
                rows += new
                with given.out.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in new)
                means = {k: np.mean([r[k] for r in new]) for k in ("psnr", "distance", "units")}
                told = {k: round(float(v), 3) for k, v in means.items()}
                print(numbers[0], task, str(setting), told, flush=True)
    return rows


def gains(task: list[Row], a: Setting, b: Setting, name: str) -> np.ndarray:
    """Return how much better b is than a, picture by picture."""
    of = [{r["number"]: r[name] for r in task if r["setting"] == s} for s in (a, b)]
    both = sorted(of[0].keys() & of[1].keys())
    sign = -1 if name == "distance" else 1
    return sign * np.array([of[1][n] - of[0][n] for n in both])


def not_worse(gain: np.ndarray, margin: float) -> bool:
    """Return whether the paired one-sided test at 0.05 rejects that b is worse by the margin."""
    statistic = (gain.mean() + margin) / (gain.std(ddof=1) / np.sqrt(len(gain)))
    return bool(statistic > stats.t.ppf(0.95, len(gain) - 1))


def report(rows: list[Row], over: str = "MGDM") -> None:
    rows = [r | {"setting": Setting(*r["setting"])} for r in rows]
    for name in dict.fromkeys(r["task"] for r in rows):
        task = [r for r in rows if r["task"] == name]
        settings = list(dict.fromkeys(r["setting"] for r in task))

        def mean(setting: Setting, key: str, task: list[Row] = task) -> float:
            return float(np.mean([r[key] for r in task if r["setting"] == setting]))

        count = len({r["number"] for r in task})
        print(f"\n### {name}, {count} pictures\n")
        print("| setting | units | s | PSNR | SSIM | distance |")
        print("|---|---|---|---|---|---|")
        for s in sorted(settings, key=lambda s: mean(s, "units")):
            print(f"| {s} | {mean(s, 'units'):.0f} | "
                  f"{mean(s, 'seconds'):.2f} | {mean(s, 'psnr'):.2f} | {mean(s, 'ssim'):.3f} | "
                  f"{mean(s, 'distance'):.3f} |")  # fmt: skip
        cold = [s for s in settings if (s.is_mgdm if over == "MGDM" else s.is_plain)]
        others = (s for s in settings if s not in cold and not s.is_mgdm)
        warm = sorted(others, key=lambda s: mean(s, "units"))
        front = [
            s for s in cold
            if not any(mean(o, "units") <= mean(s, "units") and o != s
                       and mean(o, "distance") <= mean(s, "distance") for o in cold)
        ]  # fmt: skip
        margin = 0.03 * float(np.mean([mean(s, "distance") for s in front]))
        print(f"\nThe front of {over} by distance; margins {margin:.3f} and 0.1 dB, one-sided:\n")
        for s in sorted(front, key=lambda s: mean(s, "units")):
            good = [
                w for w in warm
                if not_worse(gains(task, s, w, "distance"), margin)
                and not_worse(gains(task, s, w, "psnr"), 0.1)
            ]  # fmt: skip
            text = "no other setting is as good"
            if good:
                w = good[0]
                text = (f"{w}: {mean(s, 'units') / mean(w, 'units'):.2f} times by units, "
                        f"{mean(s, 'seconds') / mean(w, 'seconds'):.2f} by time")  # fmt: skip
            print(f"- {s}, {mean(s, 'units'):.0f} units: {text}")
        print("\nAt equal settings, LAVPS less MGDM, with 95 % intervals:\n")
        for w in warm:
            same = Setting(w.num_steps, w.grad_steps_start, w.grad_steps_end, None)
            if same in settings:
                for key in ("psnr", "distance"):
                    gain = gains(task, same, w, key)
                    half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
                    print(f"- {w}: {key} better by {gain.mean():+.3f} +- {half:.3f}")


def settings_of(text: str) -> list[Setting]:
    return [Setting(*each) for each in json.loads(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "report", "table4"))
    parser.add_argument("faces", type=Path, nargs="?")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="ffhq-64")
    parser.add_argument("--inference")
    parser.add_argument("--tasks", default=",".join(SEEN + UNSEEN))
    parser.add_argument("--first", type=int, default=4100, help="4000 for validation")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--distance", type=Path)
    parser.add_argument("--settings", type=settings_of, help="instead of those of GRIDS, JSON")
    parser.add_argument("--over", choices=GRIDS, default="MGDM", help="compared with")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="pictures restored at once")
    given = parser.parse_args()
    if given.what == "report":
        report(read(given.out), given.over)
    elif given.what == "run":
        grid = given.settings or GRIDS[given.over]
        report(run(given, given.tasks.split(","), grid), given.over)
    else:
        both = [Setting(100, 2, 2, None), Setting(36, 2, 0, 0.7)]
        report(run(given, ["rectangle", "pixels9"], both))


if __name__ == "__main__":
    main()
