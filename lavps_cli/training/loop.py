"""The training loop: the same for the denoising loss (4) and for Algorithm 1."""

import copy
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavps_cli.catalog import OptimizerName, ParallelName
from lavps_cli.errors import LavpsError
from lavps_cli.training import checkpoints
from lavps_cli.training.log import Line, Log, Numbers
from lavps_cli.training.optim import optimizers, rate, update_average
from lavps_cli.training.processes import agreed, is_first, wait, world
from lavps_cli.training.sharding import gathered_state, load_optimizer, release, set_sync, shard

Ending: TypeAlias = Literal["done", "time", "interrupted", "terminated"]


@runtime_checkable
class Objective(Protocol):
    """What is trained, and on what; its draws depend on the step alone, or on `state`."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of the network that the loss calls, beside those of its parts and `forward`."""

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        """Return the mean loss over one part of this process's pictures, and numbers to log."""

    @property
    def waited(self) -> float:
        """Seconds that steps have waited for pictures."""

    def state(self) -> dict[str, Any]:
        """Return what has to be kept from step to step, for the pictures of all processes."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the loop needs to know."""

    num_steps: int | None = None
    """Length of the training, or None where `seconds` says it."""
    seconds: float = float("inf")
    """Length of the training in time, over all its sessions."""
    max_time: float = float("inf")
    """Seconds after which to write a checkpoint and stop; the run can go on later."""
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    """Steps over which the rate rises."""
    ema: float = 0.998
    """Decay of the average of the weights, per step."""
    grad_clip: float = 1.0
    """Greatest norm of the gradient."""
    optimizer: OptimizerName = "auto"
    batch: int = 1
    """Pictures a step, of all processes; for the log."""
    parallel: ParallelName = "ddp"
    """How several processes divide the work: whole copies of the network, or shares of it."""
    parts: int = 1
    """Over how many parts of the batch the gradient is summed up."""
    log_every: int = 50
    save_every: int = 500
    keep: int = 3
    """Checkpoints that are kept."""
    sample_every: int = 0
    """Steps between two calls of `on_sample`; 0 for none."""
    eval_every: int = 0
    """Steps between two calls of `on_eval`; 0 for none."""


@dataclass(frozen=True, eq=False)
class Hooks:
    """What is done on the way, by the first process alone."""

    export: Callable[[Path, nn.Module, int], None]
    """Writes a model folder of the averaged weights."""
    on_line: Callable[[Line, float], None] = lambda line, done: None
    """Takes a line of the log and the share of the training that is done."""
    on_sample: Callable[[int, nn.Module], None] = lambda step, average: None
    on_eval: Callable[[int, nn.Module], None] = lambda step, average: None
    on_warning: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, eq=False)
class Trained:
    """What became of a training."""

    average: nn.Module
    step: int
    ending: Ending


class _Step(nn.Module):
    """The loss as a module, so that gradients of several processes are averaged."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.network = objective.network
        self._loss = objective.loss

    def forward(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        return self._loss(step, part)


def fit(objective: Objective, options: TrainOptions, run: Path, log: Log, hooks: Hooks) -> Trained:
    """Train, from the newest checkpoint in `run` if there is one.

    Writes `metrics.jsonl` and checkpoints; SIGINT, SIGTERM and `max_time` end it after the step in
    work, with a checkpoint.

    Raises:
        LavpsError: The gradient is not a number; the last checkpoint is kept.
        OutputError: Nothing can be written any more; the last checkpoint is kept.
    """
    network = objective.network
    device = next(network.parameters()).device
    average = copy.deepcopy(network).eval().requires_grad_(False)
    state = _newest(run, hooks)
    if state is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
    told = average
    sharded = world() > 1 and options.parallel == "fsdp"
    if sharded:
        told = copy.deepcopy(average)
        for each in (network, average):
            shard(each, device, objective.methods)
    optims = optimizers(network, options.optimizer, options.weight_decay)
    step, before = _resumed(objective, optims, log, state)
    whole: nn.Module = _Step(objective)
    if world() > 1 and not sharded:
        whole = DistributedDataParallel(
            whole, device_ids=[device.index] if device.type == "cuda" else None
        )
    started, saved = time.monotonic(), step

    def told_average() -> nn.Module:
        """Return the average as one whole network; all processes have to call this."""
        if sharded:
            told.load_state_dict(gathered_state(average.state_dict()))
        return told

    pace = _Pace(started, step, objective.waited)
    ending: Ending | None = None

    def save() -> None:
        mean = told_average()
        state = {
            "step": step, "seconds": before + time.monotonic() - started,
            "network": gathered_state(network.state_dict()), "average": mean.state_dict(),
            "optimizers": [gathered_state(optim.state_dict()) for optim in optims],
            "objective": objective.state(), "log": log.state(),
        }  # fmt: skip
        if is_first():
            checkpoints.save(run, step, state, lambda folder: hooks.export(folder, mean, step))
            checkpoints.prune(run, options.keep)
        wait()

    with _signals() as received:
        while ending is None:
            done = _share_done(step, before + time.monotonic() - started, options)
            if done >= 1:
                ending = "done"
                break
            norm = _accumulated(whole, step, log, options, network)
            if not torch.isfinite(norm):
                raise LavpsError(
                    f"the gradient is not a number at step {step}.",
                    f"Lower the learning rate (--lr). The last checkpoint is of step {saved}.",
                )
            for optim in optims:
                for group in optim.param_groups:
                    group["lr"] = rate(step, done, options.lr, options.warmup)
                optim.step()
                optim.zero_grad()
            step += 1
            update_average(average, network, min(options.ema, (1 + step) / (10 + step)))
            seconds = time.monotonic() - started
            done = _share_done(step, before + seconds, options)
            if step % options.log_every == 0:
                head = {"step": step, "seconds": round(before + seconds, 3)}
                line = log.write(head | pace.told(step, objective.waited, options.batch))
                if is_first():
                    hooks.on_line(line, done)
            ending = _ending(received, seconds > options.max_time, device)
            if step % options.save_every == 0 or ending or done >= 1:
                save()
                saved = step
            for every, hook in (
                (options.sample_every, hooks.on_sample),
                (options.eval_every, hooks.on_eval),
            ):
                if every and step % every == 0 and not ending:
                    mean = told_average()
                    if is_first():
                        hook(step, mean)
                    wait()
    told = told_average()
    for each in (network, average):
        release(each)
    return Trained(told, step, ending or "done")


def _accumulated(
    whole: nn.Module, step: int, log: Log, options: TrainOptions, network: nn.Module
) -> Tensor:
    """Leave the gradient of one step in the parameters, and return its norm before clipping."""
    for part in range(options.parts):
        last = part == options.parts - 1
        alone = isinstance(whole, DistributedDataParallel) and not last
        set_sync(network, last)
        with cast(DistributedDataParallel, whole).no_sync() if alone else nullcontext():
            value, numbers = whole(step, part)
            (value / options.parts).backward()
        log.add(numbers)
    norm: Tensor = gathered_state(
        nn.utils.clip_grad_norm_(network.parameters(), options.grad_clip).detach()
    )
    log.add({"norm": norm})
    return norm


class _Pace:
    """Pictures a second, and the share of the time that passed waiting for them, by line."""

    def __init__(self, now: float, step: int, waited: float) -> None:
        self._before = now, step, waited

    def told(self, step: int, waited: float, batch: int) -> Line:
        now = time.monotonic()
        seconds, steps = max(now - self._before[0], 1e-9), step - self._before[1]
        share = (waited - self._before[2]) / seconds
        self._before = now, step, waited
        return {
            "images_per_second": round(steps * batch / seconds, 3),
            "waiting": round(share, 5),
        }


def _share_done(step: int, seconds: float, options: TrainOptions) -> float:
    """Return the share of the training that is done, by steps where they are given."""
    if options.num_steps is not None:
        return step / options.num_steps
    return seconds / options.seconds


def _newest(run: Path, hooks: Hooks) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint that can be read, None if there is none."""
    state, wrong = checkpoints.load_newest(run)
    for text in wrong:
        hooks.on_warning(f"{text} An earlier checkpoint is taken.")
    return state


def _resumed(
    objective: Objective,
    optims: list[torch.optim.Optimizer],
    log: Log,
    state: dict[str, Any] | None,
) -> tuple[int, float]:
    """Take up a checkpoint, and return its step and the seconds of training so far."""
    if state is None:
        log.load({}, 0)
        return 0, 0.0
    for optim, values in zip(optims, state["optimizers"], strict=True):
        load_optimizer(optim, values)
    objective.load(state["objective"])
    log.load(state["log"], state["step"])
    return state["step"], state["seconds"]


def _ending(received: list[int], out_of_time: bool, device: torch.device) -> Ending | None:
    """Return why to stop, the same in all processes, or None."""
    own = 3 if signal.SIGTERM in received else 2 if received else 1 if out_of_time else 0
    endings: tuple[Ending | None, ...] = (None, "time", "interrupted", "terminated")
    return endings[agreed(own, device)]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being ended by them; a second one ends at once."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def collect(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for caught in (signal.SIGINT, signal.SIGTERM):
        before[caught] = signal.signal(caught, collect)
    try:
        yield received
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
