"""lavps train: from flags to a run folder."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from lavps_cli.core.types import Image
from lavps_cli.data.sources import Source, open_source
from lavps_cli.data.store import Pictures, prepare
from lavps_cli.errors import LavpsError, OutputError, UsageError
from lavps_cli.folders import cache_folder
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.preconditioning import hdit_denoiser
from lavps_cli.options import parse_seconds
from lavps_cli.pipeline.model import (
    pick_device,
    use_threads,
    warn_of_slow_bf16,
)
from lavps_cli.pipeline.publishing import check_push, publish
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.results import Listener, Progress
from lavps_cli.pipeline.stages import STAGES
from lavps_cli.pipeline.stages.stage import Setup
from lavps_cli.pipeline.train_estimate import Estimate, estimate
from lavps_cli.pipeline.train_export import (
    LOOKED_AT,
    export,
    model_config,
    restoration_grid,
    sampler_grid,
)
from lavps_cli.pipeline.train_settings import (
    CONFIG,
    check_same,
    parse_duration,
    parse_shares,
    write_config,
)
from lavps_cli.pipeline.train_setup import objective_of, set_up
from lavps_cli.pipeline.train_validation import validate
from lavps_cli.training import checkpoints
from lavps_cli.training.families import parse_families
from lavps_cli.training.log import Line, Log, check_sinks, open_sinks
from lavps_cli.training.loop import Ending, Hooks, TrainOptions, fit
from lavps_cli.training.processes import abandon, is_first, join, leave, rank, wait
from lavps_cli.training.rows import Batches

SAMPLE_SEED = 10_000


@dataclass(frozen=True, kw_only=True)
class Training:
    """What became of a training run."""

    output: str
    """The folder of the averaged weights."""
    step: int
    ending: Ending
    rank: int = 0
    """Of the process; the first one tells."""

    @property
    def told(self) -> dict[str, Any]:
        about = {"output": self.output, "step": self.step}
        return {"type": "training", "status": self.ending} | about


@dataclass(frozen=True, kw_only=True)
class TrainingProgress(Progress):
    """How far a training is, with the numbers of its last line."""

    numbers: str

    @property
    def title(self) -> str:
        return self.numbers


def train(
    request: TrainingRequest, listener: Listener, on_line: Callable[[Line], None]
) -> Training | Estimate:
    """Train as asked, or go on with it; a dry run estimates what it takes.

    Args:
        request: The flags.
        listener: Told what happens.
        on_line: Takes every line of the log.

    Raises:
        LavpsError: Anything a user can act on; the last checkpoint is kept.
    """
    use_threads(request.threads)
    check_sinks(request.log)
    check_push(request.push, request.public)
    device = join(pick_device(request.device))
    try:
        outcome = _among_processes(request, device, listener, on_line)
    except BaseException:
        abandon()
        raise
    leave()
    return outcome


def _among_processes(
    request: TrainingRequest,
    device: torch.device,
    listener: Listener,
    on_line: Callable[[Line], None],
) -> Training | Estimate:
    """Train as one of the processes; no network outlives this call."""
    setup = set_up(request, device)
    warn_of_slow_bf16(setup.autocast, device, listener)
    if request.dry_run:
        return estimate(setup)
    options = _options(request, len(setup.rows))
    shares = parse_shares(request.shares, len(request.dataset))
    sources = _sources(request, listener)
    run = _prepare_run(request)
    sizes = sorted(set(setup.sizes))
    pictures = {size: _pictures(request, sources, size, listener, shares) for size in sizes}
    held_out: dict[int, Batches] = {}
    if request.validation is not None:
        source = open_source(request.validation, "validation")
        held_out = {size: _pictures(request, [source], size, listener) for size in sizes}
    return _run(setup, options, run, pictures, held_out, sources, listener, on_line)


def _prepare_run(request: TrainingRequest) -> Path:
    """Return the folder of the run, ready to be written to."""
    run = Path(request.output)
    try:
        run.mkdir(parents=True, exist_ok=True)
        if request.resume not in ("auto", "never") and not checkpoints.checkpoints(run):
            wait()
            if is_first():
                _take_over(Path(request.resume), run)
            wait()
        if checkpoints.checkpoints(run):
            if request.resume == "never":
                raise OutputError(
                    f"{run} holds a training run.",
                    "Go on with it:  --resume auto      Start anew:  --output ANOTHER_FOLDER",
                )
            check_same(run, request)
        if is_first():
            write_config(run, request)
    except OSError as error:
        raise OutputError(
            f"{run} cannot be written: {error.strerror or error}.", "Choose:  --output DIR"
        ) from error
    wait()
    return run


def _take_over(other: Path, run: Path) -> None:
    """Copy what a run goes on from: its newest checkpoint, and its log up to there."""
    found = checkpoints.checkpoints(other)
    if not found:
        raise UsageError(
            f"--resume {other}: there is no training run with a checkpoint.",
            "Give the folder that holds its metrics.jsonl and checkpoints/.",
        )
    for name in ("metrics.jsonl", CONFIG):
        if (other / name).is_file():
            shutil.copy(other / name, run / name)
    folder = run / "checkpoints" / found[-1].name
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(found[-1], part)
    part.replace(folder)


def _sources(request: TrainingRequest, listener: Listener) -> list[Source]:
    sources = [open_source(text) for text in request.dataset]
    for source in sources:
        if source.licence is not None and is_first():
            listener.note(f"{source.name}: {source.licence}")
    return sources


def _pictures(
    request: TrainingRequest,
    sources: list[Source],
    size: int,
    listener: Listener,
    shares: tuple[float, ...] | None = None,
) -> Pictures:
    """Return the pictures of all data sets at one size, decoded once and kept in the cache."""
    crop = request.crop
    if crop == "auto":
        crop = "whole" if all(source.crop == "whole" for source in sources) else "random"
    pictures = prepare(
        sources,
        size=size,
        crop=crop,
        cache=Path(request.cache) if request.cache else cache_folder("data"),
        shares=shares,
    )
    skipped = f", {pictures.skipped} files skipped" if pictures.skipped else ""
    if is_first():
        names = " and ".join(source.name for source in sources)
        listener.note(f"{names}: {len(pictures)} pictures for {size}x{size}{skipped}")
    return pictures


def _options(request: TrainingRequest, parts: int) -> TrainOptions:
    num_steps, seconds = parse_duration(request.duration, request.batch_size)
    return TrainOptions(
        num_steps=num_steps,
        seconds=seconds,
        max_time=parse_seconds("--max-time", request.max_time),
        lr=request.lr or STAGES[request.stage].rate,
        weight_decay=request.weight_decay,
        warmup=request.warmup,
        ema=request.ema,
        optimizer=request.optimizer,
        batch=request.batch_size,
        parallel=request.parallel,
        parts=parts,
        log_every=request.log_every,
        save_every=request.save_every,
        keep=request.keep,
        sample_every=request.sample_every,
        eval_every=0 if request.validation is None else request.eval_every,
    )


def _run(
    setup: Setup,
    options: TrainOptions,
    run: Path,
    pictures: dict[int, Pictures],
    held_out: dict[int, Batches],
    sources: list[Source],
    listener: Listener,
    on_line: Callable[[Line], None],
) -> Training:
    request, size = setup.request, setup.sizes[0]
    trained_on = ", ".join(source.name for source in sources)
    trained_on += f": {len(pictures[size])} pictures"
    config = model_config(setup, trained_on)
    metrics = run / "metrics.jsonl"

    def write(folder: Path, average: nn.Module, step: int) -> None:
        export(folder, average, step, request=request, config=config, metrics=metrics)

    def tell(line: Line, done: float) -> None:
        on_line(line)
        left = line["seconds"] * (1 - done) / max(done, 1e-9)
        names = ("loss", "ratio", "unmeasured", "images_per_second")
        numbers = "  ".join(f"{n} {line[n]:.4g}" for n in names if n in line)
        total = round(line["step"] / max(done, 1e-9))
        listener.progress(
            TrainingProgress(
                input=request.output, index=1, count=1, done=int(line["step"]), total=total,
                seconds_left=left, numbers=numbers,
            )
        )  # fmt: skip

    def evaluate(step: int, average: nn.Module) -> None:
        line = validate(setup, run, held_out, step=step, average=average)
        names = [name for name in ("loss", "ratio") if name in line]
        numbers = ", ".join(f"{name} {line[name]:.4f}" for name in names)
        listener.note(f"step {step}, pictures that are not trained on: {numbers}")

    x = pictures[size].batch(0, LOOKED_AT, SAMPLE_SEED).to(setup.device)
    hooks = Hooks(write, tell, _grid(setup, run, x), evaluate, listener.warn)
    log = Log(metrics, open_sinks(request.log, run, asdict(request)))
    with objective_of(setup, dict(pictures)) as objective:
        trained = fit(objective, options, run, log, hooks)
    latest = str(run / checkpoints.LATEST)
    if trained.ending == "done" and request.push is not None and is_first():
        _push(request, latest, listener)
    return Training(output=latest, step=trained.step, ending=trained.ending, rank=rank())


def _push(request: TrainingRequest, latest: str, listener: Listener) -> None:
    """Upload what was trained; where that fails it lies on the disk all the same."""
    assert request.push is not None
    try:
        found = publish(latest, request.push, public=request.public)
    except LavpsError as error:
        listener.warn(
            f"not pushed: {error.message} Later:  lavps models push {latest} {request.push}"
        )
        return
    listener.note(f"pushed to {found.url}")


def _grid(setup: Setup, run: Path, x: Image) -> Callable[[int, nn.Module], None]:
    request, schedule, autocast = setup.request, setup.schedule, setup.autocast
    if request.stage == "prior":
        return sampler_grid(
            run, lambda net: hdit_denoiser(cast(HDiT, net), schedule, autocast), x, 0
        )

    restore = STAGES[request.stage].restore
    assert restore is not None
    families = parse_families(request.operators, setup.sizes[0])
    return restoration_grid(run, partial(restore, setup), families, x, 0)
