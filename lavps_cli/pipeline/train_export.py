"""What a training run leaves on its way: model folders with a card, and pictures to look at."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavps_cli import __version__
from lavps_cli.core.denoiser import Denoiser, ddim
from lavps_cli.core.likelihood import Likelihood, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import over, schedule_name
from lavps_cli.core.types import Image
from lavps_cli.images.picture import Picture
from lavps_cli.images.writing import encode, write_atomic
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.stages import STAGES
from lavps_cli.pipeline.stages.stage import Setup
from lavps_cli.pipeline.train_settings import command_of
from lavps_cli.training.families import Family
from lavps_cli.training.log import read_lines
from lavps_cli.training.rows import generator_of
from lavps_cli.weights.checkpoint import save

LOOKED_AT = 4
"""Pictures that are restored on the way."""
_PURPOSE = 5


def model_config(setup: Setup, trained_on: str) -> dict[str, Any]:
    """Return config.json of what is trained."""
    request, stage = setup.request, STAGES[setup.request.stage]
    config: dict[str, Any] = {
        "kind": stage.kind,
        "schedule": schedule_name(setup.schedule),
        "image_size": setup.sizes[0],
        "licence": request.licence or "not stated",
        "trained_on": trained_on,
        "lavps_version": __version__,
    }
    if stage.takes_prior:
        config |= {"prior": request.prior}
    if request.stage != "prior":
        config |= {"operators": request.operators.split(",")}
    return config | stage.about(setup)


def export(
    folder: Path,
    average: nn.Module,
    step: int,
    *,
    request: TrainingRequest,
    config: dict[str, Any],
    metrics: Path,
) -> None:
    """Write a model folder: weights, config.json, and a card with the command and the numbers."""
    network = STAGES[request.stage].exported(average)
    save(folder, network, config)
    parameters = sum(p.numel() for p in network.parameters())
    lines = read_lines(metrics) if metrics.exists() else []
    last = lines[-10:]
    names = [n for n in (last[-1] if last else {}) if n.startswith(("loss", "ratio", "unmeasured"))]
    numbers = "\n".join(
        f"| {name} | {sum(line[name] for line in of) / len(of):.4f} |"
        for name in names
        if (of := [line for line in last if name in line])
    )
    (folder / "README.md").write_text(
        f"""# {Path(request.output).name}

| | |
|---|---|
| kind | {config["kind"]}, {parameters / 1e6:.1f} M parameters |
| data | {config["trained_on"]} |
| licence | {config["licence"]} |
| steps | {step}, {request.batch_size} pictures each |
| command | `{command_of(request)}` |
| lavps | {__version__}, torch {torch.__version__} |

Means over the last {len(last)} lines of the log:

| number | value |
|---|---|
{numbers}
""",
        encoding="utf-8",
    )


def sampler_grid(
    run: Path, denoiser: Callable[[nn.Module], Denoiser], x: Image, seed: int
) -> Callable[[int, nn.Module], None]:
    """Return what draws a picture of a prior: pictures, denoised from three levels, and samples."""

    def draw(step: int, average: nn.Module) -> None:
        prior = denoiser(average)
        noise = Noise([seed + i for i in range(len(x))], x.device)
        rows = [x]
        for t in (0.3, 0.6, 0.9):
            time = torch.tensor(t, dtype=torch.float64)
            alpha, sigma = prior.schedule.alpha(time), prior.schedule.sigma(time)
            xt = over(alpha, x) * x + over(sigma, x) * noise.normal_like(x)
            with torch.no_grad():
                rows.append(prior(xt, time))
        start = torch.tensor(prior.schedule.T, dtype=torch.float64)
        rows.append(ddim(prior, noise.normal_like(x), start, 30))
        write_grid(run / "samples" / f"step_{step:08d}.png", rows)

    return draw


def restoration_grid(
    run: Path,
    restore: Callable[[nn.Module, Likelihood, Noise, tuple[int, ...]], Image],
    families: Sequence[Family],
    x: Image,
    seed: int,
) -> Callable[[int, nn.Module], None]:
    """Return what restores the same pictures with every family, and says how well.

    The picture has, for each family, a row of what is seen and one of what it became; the PSNR of
    each goes to `samples/psnr.jsonl`.
    """
    problems: list[Likelihood] = []
    for i, family in enumerate(families):
        A = family.draw(len(x), x.shape[-1], generator_of(seed, _PURPOSE, i))
        noise = Noise([seed + 100 * i + j for j in range(len(x))], x.device)
        problems.append(observe(A, x, family.sigma_y, noise))

    def draw(step: int, average: nn.Module) -> None:
        rows, psnr = [x], {}
        for family, problem in zip(families, problems, strict=True):
            noise = Noise([seed + i for i in range(len(x))], x.device)
            xhat = restore(average, problem, noise, tuple(x.shape))
            rows += [_visible(problem, x), xhat]
            error = (xhat.clamp(-1, 1) - x).square().mean().item() / 4
            psnr[family.name] = round(-10 * math.log10(max(error, 1e-10)), 3)
        write_grid(run / "samples" / f"step_{step:08d}.png", rows)
        with (run / "samples" / "psnr.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | psnr) + "\n")

    return draw


def _visible(problem: Likelihood, x: Image) -> Image:
    """Return the observation at the size of the picture."""
    scale = x.shape[-1] // problem.y.shape[-1]
    return problem.y.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def write_grid(path: Path, rows: Sequence[Image]) -> None:
    """Write rows of pictures as one PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [torch.cat(list(row.cpu().clamp(-1, 1)), -1) for row in rows]
    write_atomic(path, encode(Picture(torch.cat(lines, -2)[None]), "png"))
