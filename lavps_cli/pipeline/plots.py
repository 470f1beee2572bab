"""Figures 2 and 6 of the paper, by matplotlib, which comes with an extra."""

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lavps_cli.errors import UsageError
from lavps_cli.images.writing import write_atomic
from lavps_cli.pipeline.calibrate import Speedups
from lavps_cli.pipeline.calibrating import METHODS
from lavps_cli.storage.places import located

FORMATS = ("png", "svg")
OURS = "#c8402f"
"""LAVPS's colour."""
_COLOURS = {"mgdm": "#7a7a7a", "lavps": OURS}


def check_plot(path: str | None) -> None:
    """Check that a plot can be drawn, before anything is measured.

    Raises:
        UsageError: The format is not offered, or matplotlib is not installed.
    """
    if path is None:
        return
    if kind_of_plot(path) not in FORMATS:
        raise UsageError(f"--plot {path}: it is written as PNG or SVG.", "Name it:  fronts.svg")
    if not has_matplotlib():
        raise UsageError(
            "--plot needs matplotlib, which is not installed.",
            'Install it:  pip install "lavps[plot]"',
        )


def has_matplotlib() -> bool:
    """Return whether plots can be drawn."""
    return find_spec("matplotlib") is not None


def fronts(result: Speedups, kind: str) -> bytes:
    """Return the plot of quality against time: all configurations, fronts, and what was matched.

    Args:
        result: Of a calibration.
        kind: `png` or `svg`.
    """
    figure, grid = panels(1, 1, 6.4, 4.2)
    axes = grid[0, 0]
    for method in METHODS:
        points, colour = result.points[method], _COLOURS[method]
        axes.scatter(
            [p["seconds"] for p in points], [p["value"] for p in points],
            s=14, color=colour, alpha=0.35, linewidths=0,
        )  # fmt: skip
        front = sorted((p for p in points if p["front"]), key=lambda p: float(p["seconds"]))
        axes.plot(
            [p["seconds"] for p in front], [p["value"] for p in front],
            color=colour, marker="o", markersize=4, label=f"{method.upper()}, front",
        )  # fmt: skip
    _arrows(axes, result)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("seconds an image (median)")
    axes.set_ylabel(metric_label(result.metric))
    axes.set_title(
        f"{result.task} at {result.size}x{result.size}, {result.validation_images} images",
        fontsize=10,
    )
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
    return drawn(figure, kind)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and its axes, (rows, columns); width and height in inches are the whole's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False
    )
    return figure, axes


def metric_label(about: Mapping[str, Any]) -> str:
    """Return what stands beside an axis of a metric."""
    better = "higher" if about["higher_is_better"] else "lower"
    return f"{about['name']}, {better} is better"


def drawn(figure: Any, kind: str) -> bytes:
    """Return the file of a figure, `png` or `svg`, and close it."""
    from matplotlib import pyplot

    stream = io.BytesIO()
    # Without a date, the same numbers give the same file.
    figure.savefig(stream, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    pyplot.close(figure)
    return stream.getvalue()


def kind_of_plot(path: str) -> str:
    """Return the kind of file that a name asks for."""
    return Path(path).suffix.lower().lstrip(".")


def _arrows(axes: Any, result: Speedups) -> None:
    """Draw an arrow from each matched point of MGDM's front to its match."""
    places = {
        method: {p["config"]: (p["seconds"], p["value"]) for p in result.points[method]}
        for method in METHODS
    }
    for match in result.matches:
        start = places["mgdm"].get(match.reference_config)
        end = places["lavps"].get(match.candidate_config)
        if start and end and match.speedup is not None:
            axes.annotate(
                "", xy=end, xytext=start,
                arrowprops={"arrowstyle": "->", "color": "#333333", "alpha": 0.6},
            )  # fmt: skip
            middle = ((start[0] * end[0]) ** 0.5, (start[1] + end[1]) / 2)
            axes.annotate(
                f"{match.speedup:.2f}x", middle, fontsize=8, xytext=(3, 3),
                textcoords="offset points",
            )  # fmt: skip


def write_plot(result: Speedups, path: str) -> None:
    """Write the plot of a calibration.

    Raises:
        OutputError: It cannot be written.
    """
    write_atomic(located(path), fronts(result, kind_of_plot(path)))
