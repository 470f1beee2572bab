"""Quality against evaluations of the network, for all methods: a figure with a panel a task."""

from typing import Any

from lavps_cli.images.writing import write_atomic
from lavps_cli.pipeline.benchmark import Benchmark
from lavps_cli.pipeline.plots import OURS, drawn, kind_of_plot, metric_label, panels
from lavps_cli.storage.places import located

WIDTH, HEIGHT = 4.2, 3.4
_OTHERS = ("C0", "C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9", "black", "#1a5e4a", "#b8860b")
"""Colours of the other methods; red is LAVPS's own."""


def write_curves(result: Benchmark, path: str) -> None:
    """Write the figure of a run.

    Raises:
        OutputError: It cannot be written.
    """
    write_atomic(located(path), curves(result, kind_of_plot(path)))


def curves(result: Benchmark, kind: str) -> bytes:
    """Return the figure, `png` or `svg`: a row of panels a metric, with bars of 95 % intervals.

    One metric alone fills as many rows as look well.
    """
    metrics = [about for about in result.metrics if _is_measured(result, str(about["name"]))]
    tasks = list(dict.fromkeys(entry.task for entry in result.entries))
    methods = list(dict.fromkeys(entry.method for entry in result.entries))
    columns = len(tasks) if len(metrics) > 1 else 2 if len(tasks) in (2, 4) else min(len(tasks), 3)
    shown = [(about, task) for about in metrics for task in tasks]
    rows = max(-(-len(shown) // columns), 1)
    figure, axes = panels(rows, columns, WIDTH * columns, HEIGHT * rows)
    for place, panel in enumerate(axes.flat):
        if place >= len(shown):
            panel.set_axis_off()
            continue
        about, task = shown[place]
        for number, method in enumerate(methods):
            _line(panel, result, task, method, number, str(about["name"]))
        panel.set_title(task, fontsize=10)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("evaluations (a backward one counts twice)")
        panel.set_ylabel(metric_label(about))
        panel.grid(alpha=0.2)
    axes.flat[0].legend(frameon=False, fontsize=7, ncols=2)
    return drawn(figure, kind)


def is_curve(result: Benchmark) -> bool:
    """Return whether a method was measured with several numbers of steps."""
    cells = [(entry.task, entry.method) for entry in result.entries if entry.budget is None]
    return len(set(cells)) < len(cells)


def _is_measured(result: Benchmark, metric: str) -> bool:
    rows = [entry.row for entry in result.entries if entry.row is not None]
    return any(metric in row.metrics and row.metrics[metric].mean is not None for row in rows)


def _line(panel: Any, result: Benchmark, task: str, method: str, number: int, metric: str) -> None:
    """Draw one method's curve."""
    rows = [e.row for e in result.entries if (e.task, e.method) == (task, method)]
    found = sorted(
        ((row.units, row.metrics[metric]) for row in rows if row is not None and row.n),
        key=lambda pair: pair[0],
    )
    points = [(units, s.mean, s.low, s.high) for units, s in found if s.mean is not None]
    if not points:
        return
    own = method.partition("=")[0] == "lavps"
    bars = [
        [mean - (mean if low is None else low) for _, mean, low, _ in points],
        [(mean if high is None else high) - mean for _, mean, _, high in points],
    ]
    panel.errorbar(
        [units for units, *_ in points], [mean for _, mean, *_ in points], yerr=bars,
        label=method, marker="os^Dv<>pP*Xh"[number % 12], markersize=4,
        color=OURS if own else _OTHERS[number % len(_OTHERS)], linewidth=2 if own else 1,
        elinewidth=0.5, zorder=3 if own else 2,
    )  # fmt: skip
