"""Results as rows of text."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from lavps_cli.bench.summary import Statistic
from lavps_cli.pipeline.benchmark import Benchmark
from lavps_cli.pipeline.calibrate import Speedups
from lavps_cli.pipeline.calibrating import METHODS
from lavps_cli.pipeline.scores import Evaluation

Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]
_DIGITS = {"psnr": 2}


def number(value: float | None, name: str) -> str:
    """Return a value of a metric, `-` where it has none."""
    return "-" if value is None else f"{value:.{_DIGITS.get(name, 4)}f}"


def metric_lines(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """Return what each metric's value depends on, in words."""
    lines = []
    for metric in metrics:
        facts = [f"{k} {v}" for k, v in metric.items() if k not in ("name", "higher_is_better")]
        lines.append(f"{metric['name']}: {'; '.join(facts)}")
    return lines


def statistic(found: Statistic, name: str) -> str:
    """Return mean and interval."""
    text = number(found.mean, name)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{number(found.low, name)}, {number(found.high, name)}]"


def benchmark_table(result: Benchmark) -> Table:
    """Return the table of a benchmark: a row a cell."""
    names = [metric["name"] for metric in result.metrics]
    budgets = any(entry.budget is not None for entry in result.entries)
    changes = any(entry.gains for entry in result.entries)
    head = ["task", "trained on", *(["budget"] if budgets else []), "method", "K", "n", "s/image"]
    head += ["units", *names, "accepted", "peak MB"]
    head += [f"{name} better by" for name in names] if changes else []
    rows = []
    for entry in result.entries:
        seen = {True: "yes", False: "no", None: "-"}[entry.seen]
        start = [entry.task, seen, *([f"{entry.budget:g} s"] if budgets else []), entry.method]
        row = entry.row
        if row is None or row.n == 0:
            rows.append(start + ["-"] * (len(head) - len(start)))
            continue
        seconds = "-" if row.seconds is None else f"{row.seconds:.2f}"
        if row.n > 1:
            seconds += f" [{row.seconds_low:.2f}, {row.seconds_high:.2f}]"
        cells = [str(row.options.get("num_steps", "-")), str(row.n), seconds, f"{row.units:.0f}"]
        cells += [statistic(row.metrics[name], name) for name in names]
        cells.append("-" if row.acceptance is None else f"{row.acceptance:.0%}")
        cells.append("-" if row.peak_mb is None else f"{row.peak_mb:.0f}")
        if changes:
            for name in names:
                gain = entry.gains.get(name)
                cells.append("-" if gain is None or not gain.n else f"{gain.gain:+.4g}")
        rows.append(start + cells)
    return head, rows


def matches_table(result: Speedups) -> Table:
    """Return the table of the speedups: a row for each point of MGDM's front."""
    name = result.metric["name"]
    head = [
        "MGDM s", "units", name, "LAVPS s", "units", name, "speedup", "95 %", "by units", "settings"
    ]  # fmt: skip
    head += ["paid back after"] if result.break_even else []
    rows = []
    for place, match in enumerate(result.matches):
        row = [
            f"{match.reference_seconds:.3f}",
            f"{match.reference_units:.0f}",
            number(match.reference_loss, name),
        ]
        if match.candidate is None:
            row += ["-"] * 5 + ["-", "no LAVPS setting is as good"]
        else:
            row += [
                f"{match.candidate_seconds:.3f}",
                f"{match.candidate_units:.0f}",
                number(match.candidate_loss, name),
                f"{match.speedup:.2f}",
                f"{match.low:.2f} to {match.high:.2f}",
                f"{match.predicted:.2f}",
                _settings(match.candidate),
            ]
        if result.break_even:
            images = result.break_even[place]
            row.append("never" if images is None else f"{images:.0f} images")
        rows.append(row)
    return head, rows


def gradient_steps_table(result: Speedups) -> Table | None:
    """Return what gradient steps inside script-T bring to either method (Figure 7)."""
    found = result.by_gradient_steps()
    if not found:
        return None
    name = result.metric["name"]
    rows = []
    for row in found:
        cells = [str(row["grad_steps_end"])]
        for method in METHODS:
            point = row[method]
            spread = "" if point["sd"] is None else f" +- {number(point['sd'], name)}"
            cells += [f"{point['seconds']:.3f}", number(point["value"], name) + spread]
        rows.append(cells)
    return ["G_end", "MGDM s", name, "LAVPS s", name], rows


def _settings(options: dict[str, Any]) -> str:
    start, end = options["grad_steps_start"], options["grad_steps_end"]
    back = options.get("switch_back", 1)
    until = f"-{back:g}" if back < 1 else ""
    return f"K={options['num_steps']} G={start}/{end} r={options['switch_ratio']:g}{until}"


def evaluation_table(result: Evaluation) -> Table:
    """Return the table of an evaluation: a row a metric."""
    rows = [
        [name, str(found.n), number(found.mean, name), number(found.sd, name),
         "-" if found.low is None else f"{number(found.low, name)} to {number(found.high, name)}"]
        for name, found in result.metrics.items()
    ]  # fmt: skip
    return ["metric", "n", "mean", "sd", "95 % of the mean"], rows


def text_of(table: Table) -> str:
    """Return a table as aligned text."""
    head, rows = table
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
