"""lavps train: from flags to a run folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from lavps_cli.catalog import DtypeName
from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.core.schedule import SCHEDULES, Schedule, schedule_name
from lavps_cli.core.types import Image
from lavps_cli.data.sources import Source, open_source
from lavps_cli.data.store import Pictures, prepare
from lavps_cli.errors import OutputError, UsageError
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.inference import AmortisedInference, InferenceNetwork
from lavps_cli.models.preconditioning import PreconditionedDenoiser, hdit_denoiser
from lavps_cli.pipeline.cache import cache_folder
from lavps_cli.pipeline.model import (
    compile_network,
    pick_device,
    pick_dtype,
    use_threads,
    warn_of_slow_bf16,
)
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.results import Listener, Progress
from lavps_cli.pipeline.train_export import (
    LOOKED_AT,
    export,
    model_config,
    restoration_grid,
    sampler_grid,
)
from lavps_cli.pipeline.train_settings import (
    check_same,
    parse_duration,
    parse_seconds,
    parse_shares,
    parse_sizes,
    write_config,
)
from lavps_cli.training import checkpoints
from lavps_cli.training.algorithm1 import InferenceObjective
from lavps_cli.training.denoising import PriorObjective
from lavps_cli.training.families import parse_families
from lavps_cli.training.log import Line, Log, check_sinks, open_sinks
from lavps_cli.training.loop import Ending, Hooks, Objective, TrainOptions, fit
from lavps_cli.training.networks import inference_config, prior_config
from lavps_cli.training.processes import abandon, is_first, join, leave, rank, wait, world
from lavps_cli.training.rows import Batches, Rows, shares
from lavps_cli.weights.checkpoint import load_denoiser, load_inference
from lavps_cli.weights.index import resolve

RATES = {"prior": 2e-3, "inference": 1e-3}
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
class Estimate:
    """What a training would take; measured by a few steps on noise."""

    parameters: int
    steps: int
    pictures_per_second: float
    hours: float
    memory_mib: int

    @property
    def told(self) -> dict[str, Any]:
        return {"type": "plan", "status": "planned"} | asdict(self)

    @property
    def text(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} M parameters, {self.steps} steps at "
            f"{self.pictures_per_second:.1f} pictures a second: {self.hours:.1f} h, "
            f"{self.memory_mib} MiB"
        )


@dataclass(frozen=True, kw_only=True)
class TrainingProgress(Progress):
    """How far a training is, with the numbers of its last line."""

    numbers: str

    @property
    def title(self) -> str:
        return self.numbers


@dataclass(frozen=True, eq=False)
class _Setup:
    """Everything that does not depend on the data."""

    request: TrainingRequest
    sizes: tuple[int, ...]
    device: torch.device
    autocast: torch.dtype | None
    rows: list[Rows]
    shape: HDiTConfig
    network: HDiT | InferenceNetwork
    prior: PreconditionedDenoiser | None
    """The frozen prior of the inference stage."""

    @property
    def schedule(self) -> Schedule:
        return SCHEDULES["flow"] if self.prior is None else self.prior.schedule


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
    device = join(pick_device(request.device))
    try:
        setup = _set_up(request, device)
        warn_of_slow_bf16(setup.autocast, device, listener)
        if request.dry_run:
            estimate = _estimate(setup)
            leave()
            return estimate
        options = _options(request, len(setup.rows))
        parse_shares(request.shares, len(request.dataset))
        sources = _sources(request, listener)
        run = _prepare_run(request)
        pictures = {
            size: _pictures(request, sources, size, listener) for size in sorted(set(setup.sizes))
        }
        trained = _run(setup, options, run, pictures, sources, listener, on_line)
    except BaseException:
        abandon()
        raise
    leave()
    return trained


def _set_up(request: TrainingRequest, device: torch.device) -> _Setup:
    sizes = parse_sizes(request.resolution, prior_config(request.preset, 64).multiple)
    parts = -(-request.batch_size // (world() * (request.batch_gpu or request.batch_size)))
    if request.batch_size % (world() * parts):
        raise UsageError(
            f"--batch-size {request.batch_size} does not divide over {world()} processes with "
            f"--batch-gpu {request.batch_gpu}.",
            "Choose a multiple of their product.",
        )
    if len(sizes) > 1 and request.stage == "inference":
        raise UsageError(
            f"--resolution {request.resolution}: inference models are trained at one size.",
            f"For example:  --resolution {sizes[0]}",
        )
    autocast = train_dtype(request.dtype, device)
    prior = None
    if request.stage == "inference":
        prior = load_denoiser(resolve(request.prior), device=device, autocast=autocast)
        shape = inference_config(request.preset, request.arch, sizes[0])
        parse_families(request.operators, sizes[0])
    else:
        shape = prior_config(request.preset, sizes[0])
    network = _begun_from(request, device)
    if network is None:
        with _seeded(request.seed):
            network = HDiT(shape) if prior is None else InferenceNetwork(shape)
    network = network.to(device).train().requires_grad_(True)
    backbone = network if isinstance(network, HDiT) else network.backbone
    shape = backbone.config
    divided = world() > 1 and request.parallel == "fsdp"
    pays = device.type == "cuda" and not divided
    if request.compile == "on" or (request.compile == "auto" and pays):
        compile_network(backbone)
        if prior is not None:
            compile_network(prior.network)
    rows = shares(request.batch_size, rank(), world(), parts)
    return _Setup(request, sizes, device, autocast, rows, shape, network, prior)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have the weights that are drawn inside depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def _begun_from(request: TrainingRequest, device: torch.device) -> HDiT | InferenceNetwork | None:
    """Return the network of `--from`, if that is given."""
    if request.start_from is None:
        return None
    folder = resolve(request.start_from)
    if request.stage == "prior":
        network = load_denoiser(folder, device=device).network
        assert isinstance(network, HDiT)
        return network
    return load_inference(folder, device=device).network


def train_dtype(name: DtypeName, device: torch.device) -> torch.dtype | None:
    """Return the precision inside the networks while training, None for float32.

    Raises:
        UsageError: It is fp16, whose gradients would need scaling.
    """
    if name == "fp16":
        raise UsageError("--dtype fp16 is not for training.", "Choose:  --dtype bf16   or fp32")
    if name == "auto" and device.type == "cpu":
        # Trains 1.5 to 2 times as fast where the processor multiplies bf16 matrices.
        return torch.bfloat16 if multiplies_bf16(device) else None
    return pick_dtype(name, device)


def _prepare_run(request: TrainingRequest) -> Path:
    """Return the folder of the run, ready to be written to."""
    run = Path(request.output)
    try:
        run.mkdir(parents=True, exist_ok=True)
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


def _sources(request: TrainingRequest, listener: Listener) -> list[Source]:
    sources = [open_source(text) for text in request.dataset]
    for source in sources:
        if source.licence is not None and is_first():
            listener.note(f"{source.name}: {source.licence}")
    return sources


def _pictures(
    request: TrainingRequest, sources: list[Source], size: int, listener: Listener
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
        shares=parse_shares(request.shares, len(sources)),
    )
    skipped = f", {pictures.skipped} files skipped" if pictures.skipped else ""
    if is_first():
        listener.note(f"{len(pictures)} pictures for {size}x{size}{skipped}")
    return pictures


def _objective(
    setup: _Setup, pictures: dict[int, Batches], num_families: int | None = None
) -> Objective:
    request = setup.request
    if setup.prior is None or isinstance(setup.network, HDiT):
        return PriorObjective(
            setup.network, pictures, setup.sizes, setup.rows, request.seed, setup.device,
            setup.autocast,
        )  # fmt: skip
    size = setup.sizes[0]
    return InferenceObjective(
        AmortisedInference(setup.network, setup.schedule, setup.autocast),
        setup.prior,
        parse_families(request.operators, size)[:num_families],
        pictures[size],
        setup.rows,
        request.seed,
        size,
        request.switch_ratio,
        setup.device,
    )


def _options(request: TrainingRequest, parts: int) -> TrainOptions:
    num_steps, seconds = parse_duration(request.duration, request.batch_size)
    return TrainOptions(
        num_steps=num_steps,
        seconds=seconds,
        max_time=parse_seconds("--max-time", request.max_time),
        lr=request.lr or RATES[request.stage],
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
    )


def _run(
    setup: _Setup,
    options: TrainOptions,
    run: Path,
    pictures: dict[int, Pictures],
    sources: list[Source],
    listener: Listener,
    on_line: Callable[[Line], None],
) -> Training:
    request, size = setup.request, setup.sizes[0]
    objective = _objective(setup, dict(pictures))
    trained_on = ", ".join(source.name for source in sources)
    trained_on += f": {len(pictures[size])} pictures"
    config = model_config(request, setup.shape, schedule_name(setup.schedule), size, trained_on)
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

    x = pictures[size].batch(0, LOOKED_AT, SAMPLE_SEED).to(setup.device)
    hooks = Hooks(write, tell, _grid(setup, run, x), listener.warn)
    log = Log(metrics, open_sinks(request.log, run, asdict(request)))
    trained = fit(objective, options, run, log, hooks)
    latest = str(run / checkpoints.LATEST)
    return Training(output=latest, step=trained.step, ending=trained.ending, rank=rank())


def _grid(setup: _Setup, run: Path, x: Image) -> Callable[[int, nn.Module], None]:
    schedule, autocast = setup.schedule, setup.autocast
    if setup.prior is None:
        return sampler_grid(
            run, lambda net: hdit_denoiser(cast(HDiT, net), schedule, autocast), x, 0
        )
    return restoration_grid(
        run,
        lambda net: AmortisedInference(cast(InferenceNetwork, net), schedule, autocast),
        setup.prior,
        parse_families(setup.request.operators, setup.sizes[0]),
        x,
        seed=0,
        switch_ratio=setup.request.switch_ratio,
    )


@dataclass(frozen=True)
class _Static:
    """Pictures of noise, to time a step with."""

    size: int

    def batch(self, first: int, count: int, seed: int) -> Image:
        generator = torch.Generator().manual_seed(first)
        return torch.randn(count, 3, self.size, self.size, generator=generator).clamp(-1, 1)


def _estimate(setup: _Setup) -> Estimate:
    """Return what the training takes, from its second and third turn of sizes.

    With one family: the first step of each draws new trajectories, which is rare later on.
    """
    request = setup.request
    objective = _objective(setup, {size: _Static(size) for size in set(setup.sizes)}, 1)
    turn, parts = len(setup.sizes), len(setup.rows)
    started = 0.0
    for step in range(3 * turn):
        if step == turn:
            started = time.perf_counter()
        for part in range(parts):
            objective.loss(step + 1, part)[0].backward()  # type: ignore[no-untyped-call]
        setup.network.zero_grad()
    if setup.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / (2 * turn)
    options = _options(request, parts)
    steps = options.num_steps or round(options.seconds / seconds)
    return Estimate(
        parameters=sum(p.numel() for p in setup.network.parameters()),
        steps=steps,
        pictures_per_second=request.batch_size / seconds,
        hours=steps * seconds / 3600,
        memory_mib=_memory(setup) >> 20,
    )


def _memory(setup: _Setup) -> int:
    """Return the greatest memory so far in bytes, and that of the optimiser and the average."""
    import resource

    parameters = sum(4 * p.numel() for p in setup.network.parameters())
    if setup.device.type == "cuda":
        return torch.cuda.max_memory_allocated() + 3 * parameters
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 3 * parameters
