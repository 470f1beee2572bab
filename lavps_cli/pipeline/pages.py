"""One self-contained HTML page: numbers, plot, and pictures side by side."""

import base64
from collections.abc import Sequence
from html import escape

from lavps_cli.images.writing import write_atomic
from lavps_cli.pipeline.benchmark import Benchmark
from lavps_cli.pipeline.calibrate import Speedups
from lavps_cli.pipeline.curves import curves, is_curve
from lavps_cli.pipeline.kept_pictures import picture_file, seen_file
from lavps_cli.pipeline.plots import fronts, has_matplotlib
from lavps_cli.pipeline.tables import benchmark_table, gradient_steps_table, matches_table
from lavps_cli.storage.places import Place, located

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}
figure{display:inline-block;margin:.4rem}figcaption{font-size:12px;color:#555;max-width:12rem}
img{width:12rem;image-rendering:pixelated;display:block}svg{max-width:44rem;height:auto}
dt{float:left;clear:left;width:9rem;color:#555}dd{margin-left:9rem}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}th,td{border-color:#444}
svg{background:#fff}}
"""


def _page(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> str:
    head, rows = table
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _facts(facts: dict[str, object]) -> str:
    items = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>"
        for key, value in facts.items()
        if value is not None
    )
    return f"<dl>{items}</dl>"


def _drawing(svg: bytes) -> str:
    """Return a figure without the head that only a file of its own has."""
    text = svg.decode()
    return text[text.index("<svg") :]


def _figure(path: Place, caption: str) -> str:
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _marks(folder: Place) -> list[str]:
    """Return the digests of the images of which pictures were kept."""
    return sorted(p.name.removesuffix("-clean.png") for p in folder.glob("*-clean.png"))[:3]


def _gallery(output: str, task: str, shown: Sequence[tuple[str, str]]) -> str:
    """Return rows of pictures: clean, seen, and what each configuration made of it.

    Args:
        output: Folder of the run.
        task: A family.
        shown: Digest and caption of configurations.
    """
    folder, rows = located(output) / "pictures", []
    for mark in _marks(folder):
        row = _figure(folder / f"{mark}-clean.png", "clean")
        row += _figure(seen_file(folder, task, mark), "observed")
        row += "".join(_figure(picture_file(folder, c, mark), text) for c, text in shown)
        rows.append(f"<div>{row}</div>")
    return f"<h3>{escape(task)}</h3>" + "".join(rows) if rows else ""


def benchmark_page(result: Benchmark) -> str:
    """Return the page of a benchmark."""
    parts = [_facts(result.environment), _table(benchmark_table(result))]
    if not result.complete:
        parts.append(f"<p>Not complete: {result.missing} measurements did not fit the time.</p>")
    if is_curve(result) and has_matplotlib():
        parts += ["<h2>Quality against evaluations</h2>", _drawing(curves(result, "svg"))]
    parts.append("<h2>Metrics</h2>")
    parts += [_facts(metric) for metric in result.metrics]
    parts.append("<h2>Pictures</h2>")
    for task in dict.fromkeys(entry.task for entry in result.entries):
        of_task = [e for e in result.entries if e.task == task and e.row is not None]
        shown = [
            (e.row.config, e.method + (f" within {e.budget:g} s" if e.budget is not None else ""))
            for e in of_task
            if e.row is not None
        ]
        parts.append(_gallery(result.output, task, shown))
    return _page("lavps benchmark", parts)


def calibration_page(result: Speedups) -> str:
    """Return the page of a calibration."""
    facts: dict[str, object] = result.environment | {
        "task": result.task,
        "size": result.size,
        "metric": result.metric["name"],
        "margin": result.margin,
        "images": f"{result.validation_images} for validation, {result.test_images} for the test",
        "work saved": f"{result.saved['factor']:.1f} times",
    }
    parts = [_facts(facts), "<h2>Speedup at matched quality</h2>", _table(matches_table(result))]
    if result.published is not None:
        parts.append(f"<p>Table 1 of the paper has {escape(result.published)}.</p>")
    if has_matplotlib():
        parts += ["<h2>Fronts</h2>", _drawing(fronts(result, "svg"))]
    if (steps := gradient_steps_table(result)) is not None:
        parts += ["<h2>Gradient steps inside script-T, all else equal</h2>", _table(steps)]
    parts.append("<h2>Pictures</h2>")
    for place, match in enumerate(result.matches, 1):
        shown = [(match.reference_config, f"MGDM, {match.reference_seconds:.2f} s")]
        if match.candidate is not None:
            shown.append((match.candidate_config, f"LAVPS, {match.candidate_seconds:.2f} s"))
        parts.append(f"<h3>Match {place}</h3>" + _gallery(result.output, result.task, shown))
    return _page(f"lavps calibrate-speedup: {result.task}", parts)


def write_page(path: str, text: str) -> None:
    """Write a page.

    Raises:
        OutputError: It cannot be written.
    """
    write_atomic(located(path), text.encode())
