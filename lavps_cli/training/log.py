"""Numbers of a training run: means between two lines of metrics.jsonl, and further sinks."""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from lavps_cli.errors import OutputError, UsageError, suggestion
from lavps_cli.training.processes import gathered, is_first

Numbers: TypeAlias = Mapping[str, Tensor]
"""Values of the pictures of a batch by name; a name may have values of some of them only."""
Line: TypeAlias = dict[str, int | float]
Sink: TypeAlias = Callable[[Line], None]

SINKS = ("jsonl", "tensorboard", "wandb", "trackio")


class Log:
    """Sums and counts since the last line, over the pictures of all processes."""

    def __init__(self, path: Path, sinks: list[Sink] | None = None) -> None:
        self.path, self.sinks = path, sinks or []
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, numbers: Numbers) -> None:
        for name, values in numbers.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + float(values.double().sum()), count + values.numel())

    def write(self, head: Line) -> Line:
        """Write a line of means, and return it; every process takes part, the first one writes.

        Raises:
            OutputError: The line cannot be written.
        """
        sums: dict[str, tuple[float, int]] = {}
        for own in gathered(self._sums):
            for name, (total, count) in own.items():
                before = sums.get(name, (0.0, 0))
                sums[name] = (before[0] + total, before[1] + count)
        self._sums = {}
        line = head | {name: total / count for name, (total, count) in sums.items() if count}
        if is_first():
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise OutputError(
                    f"{self.path} cannot be written: {error.strerror or error}.",
                    "Make room, then give the same command again: the run goes on.",
                ) from error
            for sink in self.sinks:
                sink(line)
        return line

    def state(self) -> dict[str, tuple[float, int]]:
        """Return the sums of all processes since the last line."""
        sums: dict[str, tuple[float, int]] = {}
        for own in gathered(self._sums):
            for name, (total, count) in own.items():
                before = sums.get(name, (0.0, 0))
                sums[name] = (before[0] + total, before[1] + count)
        return sums

    def load(self, state: dict[str, tuple[float, int]], step: int) -> None:
        """Go on after `step`: take the sums, and drop lines that will be written again."""
        self._sums = dict(state) if is_first() else {}
        if not is_first() or not self.path.exists():
            return
        kept = [line for line in read_lines(self.path) if line["step"] <= step]
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        part.replace(self.path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file; one that was cut off by a kill is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def check_sinks(names: str) -> None:
    """Check the names of further sinks.

    Raises:
        UsageError: A name is not known, or its package is missing.
    """
    for name in names.split(","):
        if name not in SINKS:
            raise UsageError(f"--log {name}: there is no such log.", suggestion(name, SINKS))
        if name != "jsonl" and find_spec(name) is None:
            raise UsageError(f"--log {name}: it is not installed.", f"pip install {name}")


def open_sinks(names: str, folder: Path, settings: dict[str, Any]) -> list[Sink]:
    """Return what else takes the lines: `jsonl` is always written; the rest is opt-in."""
    wanted = names.split(",") if is_first() else []
    sinks = [_tensorboard(folder)] if "tensorboard" in wanted else []
    return sinks + [
        _tracker(name, folder, settings) for name in ("wandb", "trackio") if name in wanted
    ]


def _tensorboard(folder: Path) -> Sink:
    writer = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def sink(line: Line) -> None:
        for name, value in line.items():
            if name != "step":
                writer.add_scalar(name, value, int(line["step"]))
        writer.flush()

    return sink


def _tracker(name: str, folder: Path, settings: dict[str, Any]) -> Sink:
    """Return a sink for wandb or trackio, which have the same two calls."""
    tracker = import_module(name)
    tracker.init(project="lavps", name=folder.name, config=settings)
    return lambda line: tracker.log(line, step=int(line["step"]))
