"""`--fail-under`: what a benchmark has to reach."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lavps_cli import catalog
from lavps_cli.bench.summary import Difference, Row
from lavps_cli.errors import UsageError, suggestion
from lavps_cli.pipeline.calibration import kind_of
from lavps_cli.pipeline.metrics import ImageMetric


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell of the comparison: a method on a task, at a budget."""

    budget: float | None
    seen: bool | None
    """Whether the inference model was trained on such operators; None where it does not say."""
    row: Row | None
    method: str
    task: str
    gains: dict[str, Difference] = field(default_factory=dict)
    """Against the records of an earlier run, by metric."""


@dataclass(frozen=True)
class Threshold:
    """What `--fail-under` asks."""

    text: str
    method: str
    task: str
    metric: str
    value: float


def parse_threshold(text: str) -> Threshold:
    """Return what `[METHOD:]TASK.METRIC=VALUE` asks.

    Raises:
        UsageError: It is something else.
    """
    head, _, value = text.rpartition("=")
    task, _, metric = head.rpartition(".")
    method, colon, rest = task.partition(":")
    if not colon or method not in catalog.SAMPLERS:
        method, rest = "lavps", task
    try:
        if not (rest and metric):
            raise ValueError
        return Threshold(text, method, rest, metric, float(value))
    except ValueError:
        raise UsageError(
            f"--fail-under {text}: expected [METHOD:]TASK.METRIC=VALUE.",
            "For example:  --fail-under deblur.psnr=27.5",
        ) from None


def check_thresholds(thresholds: Sequence[Threshold], metrics: Sequence[ImageMetric]) -> None:
    """Check that thresholds are on metrics that are measured.

    Raises:
        UsageError: One is not.
    """
    names = [metric.name for metric in metrics]
    for threshold in thresholds:
        if threshold.metric not in names:
            raise UsageError(
                f"--fail-under {threshold.text}: {threshold.metric} is not measured.",
                suggestion(threshold.metric, names),
            )


def failed_cells(
    entries: Sequence[Entry], thresholds: Sequence[Threshold], metrics: Sequence[ImageMetric]
) -> list[str]:
    """Return, in words, the thresholds that are not met and the cells that stayed empty."""
    failed = []
    for entry in entries:
        name = f"{entry.method} on {entry.task}"
        within = "" if entry.budget is None else f" within {entry.budget:g} s"
        row = entry.row
        if row is None or row.seconds is None:
            failed.append(f"{name}{within}: no measurement")
        elif entry.budget is not None and row.seconds > entry.budget:
            failed.append(f"{name}{within}: it took {row.seconds:.3g} s")
    higher = {metric.name: metric.higher for metric in metrics}
    for asked in thresholds:
        found = [
            entry
            for entry in entries
            if entry.method == asked.method and asked.task in (entry.task, kind_of(entry.task))
        ]
        if not found:
            failed.append(f"{asked.text}: there is no such cell")
        for entry in found:
            mean = entry.row.metrics[asked.metric].mean if entry.row is not None else None
            good = mean is not None and (
                mean >= asked.value if higher[asked.metric] else mean <= asked.value
            )
            if not good:
                value = "no value" if mean is None else f"{mean:.4g}"
                failed.append(f"{asked.text}: {entry.task} has {value}")
    return failed
