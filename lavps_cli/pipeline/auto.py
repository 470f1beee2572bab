"""`--method auto`: the best sampler within a time, as `lavps benchmark --curve` measures."""

import json
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lavps_cli import catalog
from lavps_cli.catalog import MASKED
from lavps_cli.core.operator import LinearOperator, SpectralOperator
from lavps_cli.errors import UsageError
from lavps_cli.folders import cache_folder
from lavps_cli.pipeline.benchmark import Benchmark
from lavps_cli.pipeline.calibration import keep, kind_of, model_key, probe_size
from lavps_cli.pipeline.contenders import methods_of
from lavps_cli.pipeline.degradation import Degradation
from lavps_cli.pipeline.masks import is_scattered
from lavps_cli.pipeline.model import Weights, open_weights
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Listener
from lavps_cli.pipeline.settings import preset_of, probe

AUTO = "auto"
FORMAT = 1
BUNDLED = Path(__file__).parents[1] / "bench" / "curves.json"
SCATTERED = "inpaint:pixels"
"""The kind of holes between whose pixels much is known; any others are `inpaint`."""
AS_CHEAP = 1.5
"""Costs that differ by no more count as the same where all are too high."""
_LIKE = {"colorize": "inpaint", "jpeg": "denoise", "declip": "inpaint"}
"""Tasks that are not measured, and those whose methods serve for them."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration of a method, measured on a kind of operators."""

    task: str
    method: str
    num_steps: int
    evaluations: float
    """Of the networks, forward, a backward one counting twice."""
    cost: float
    """The same in evaluations of the prior, of other networks by their time."""
    value: float


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Quality against cost, for all methods that were compared."""

    model: str
    metric: str
    higher: bool
    size: int
    images: int
    points: list[Point]
    format: int = FORMAT


def keep_curves(result: Benchmark) -> Path:
    """Keep what a run has measured for `--method auto`; what is there of the model is replaced.

    Raises:
        OutputError: It cannot be written.
    """
    return keep(_place(result.model), asdict(curves_of(result)))


def curves_of(result: Benchmark) -> Curves:
    """Return what a run has measured, as far as there are values.

    The first distance among its metrics decides, or the first metric where there is none: PSNR
    likes means, which are no samples.
    """
    about = next((m for m in result.metrics if not m["higher_is_better"]), result.metrics[0])
    metric, higher = str(about["name"]), bool(about["higher_is_better"])
    good = [
        (e.task, e.method.partition("=")[0], e.row, e.row.seconds)
        for e in result.entries
        if e.row is not None and e.row.seconds is not None
    ]
    shared = [seconds / row.units for _, method, row, seconds in good if not _is_trained(method)]
    unit = statistics.median(shared) if shared else 1.0
    points = [
        Point(
            task=SCATTERED if task.startswith(SCATTERED) else kind_of(task),
            method=method,
            num_steps=int(row.options.get("num_steps", 1)),
            evaluations=row.units,
            # Of the prior's own evaluations the number tells more than a time.
            cost=seconds / unit if _is_trained(method) else row.units,
            value=value,
        )
        for task, method, row, seconds in good
        if (value := row.metrics[metric].mean) is not None
    ]
    images = max((row.n for _, _, row, _ in good), default=0)
    return Curves(
        model=result.model, metric=metric, higher=higher, size=result.size, images=images,
        points=_joined(points),
    )  # fmt: skip


def _joined(points: Sequence[Point]) -> list[Point]:
    """Return one point for each configuration and kind: the mean over the operators of that kind.

    What was not measured on all of them cannot be compared, and is left out.
    """
    groups: dict[tuple[str, str, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.task, point.method, point.num_steps), []).append(point)
    most: dict[str, int] = {}
    for (task, _, _), group in groups.items():
        most[task] = max(most.get(task, 0), len(group))
    return [
        replace(
            group[0],
            evaluations=statistics.fmean(point.evaluations for point in group),
            cost=statistics.fmean(point.cost for point in group),
            value=statistics.fmean(point.value for point in group),
        )
        for (task, _, _), group in groups.items()
        if len(group) == most[task]
    ]


def _is_trained(method: str) -> bool:
    """Return whether a method has a network of its own."""
    return catalog.sampler(method).trained is not None


def _place(model: str) -> Path:
    """Return where the curves of a model are kept."""
    return cache_folder("curves") / f"{model.replace('/', '_')}.json"


def read_curves(path: Path) -> Curves | None:
    """Return the curves of a file, None where it has none that can be used."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        points = [Point(**point) for point in values.pop("points")]
        found = Curves(**values, points=points)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    known = all(point.method in catalog.SAMPLERS for point in points)
    return found if found.format == FORMAT and known and points else None


def known_curves(weights: Weights) -> Curves:
    """Return the curves of these weights if they were measured here, else those that came along."""
    found = read_curves(_place(model_key(weights))) or read_curves(BUNDLED)
    assert found is not None
    return found


def kind_seen(degradation: Degradation) -> str:
    """Return the kind of operators that a damage belongs to."""
    base, mask = degradation.task.removesuffix(MASKED), degradation.mask
    if base == "inpaint" and mask is not None and is_scattered(mask.values):
        return SCATTERED
    return _LIKE.get(base, base)


def best_point(
    curves: Curves, kind: str, methods: Collection[str], cost: float
) -> tuple[Point, bool]:
    """Return the best configuration within a cost, and whether there is one.

    Where there is none it is the best of the cheapest, whose costs are times and not known better.

    Args:
        curves: What is known.
        kind: Of operators; scattered holes are any holes where they were not measured.
        methods: Those that can be used.
        cost: In forward evaluations of the prior.
    """
    known = {point.task for point in curves.points}
    kind = kind if kind in known else kind_of(kind)
    usable = [p for p in curves.points if p.task == kind and p.method in methods]
    fit = [p for p in usable if p.cost <= cost]
    least = min(p.cost for p in usable)
    within = fit or [p for p in usable if p.cost <= AS_CHEAP * least]
    sign = 1 if curves.higher else -1
    return max(within, key=lambda p: (sign * p.value, -p.cost)), bool(fit)


def usable_methods(weights: Weights, A: LinearOperator, shape: tuple[int, int]) -> list[str]:
    """Return the methods that there are networks for, and that can undo an operator.

    Args:
        weights: The networks.
        A: What the methods have to undo.
        shape: Height and width of the scene.
    """
    spectral = _has_singular_vectors(A, shape)
    return [name for name in methods_of(weights) if spectral or not catalog.sampler(name).spectral]


def _has_singular_vectors(A: LinearOperator, shape: tuple[int, int]) -> bool:
    if not isinstance(A, SpectralOperator):
        return False
    try:
        A.spectral(torch.ones_like, torch.zeros(1, 3, *shape))
    except UsageError:  # Of blurs, one boundary alone has them in closed form.
        return False
    return True


def chosen_method(
    request: Restoration, seen: Observation, budget: float, listener: Listener
) -> Restoration:
    """Return a request with the method and its steps that are best within a time for a picture.

    Args:
        request: With `auto` for a method.
        seen: The problem that the picture poses, which stands for all of them.
        budget: Seconds of a sample.
        listener: Told what was chosen.

    Raises:
        UsageError: The time is too short for any.
        LavpsError: The weights cannot be used.
    """
    weights = open_weights(request.compute, "lavps")
    pixels = seen.shape[0] * seen.shape[1]
    unit = probe(weights, "lavps", probe_size(pixels)).predict(1.0, pixels)
    curves = known_curves(weights)
    kind = kind_seen(seen.degradation)
    usable = usable_methods(weights, seen.A, seen.shape)
    if request.compute.inference == "none":
        usable = [name for name in usable if catalog.sampler(name).inference is None]
    point, fits = best_point(curves, kind, usable, budget / unit)
    told = f"{point.method} with {point.num_steps} steps"
    if not fits:
        takes = point.cost * unit
        raise UsageError(
            f"--budget {budget:g}s: the fastest, {told}, takes {takes:.2g} s for such a picture on "
            "this device.",
            f"Give more:  --budget {max(takes * 1.1, 0.01):.2g}s",
        )
    listener.note(
        f"{told}: the best for {seen.degradation.task} within {budget:g} s "
        f"({curves.metric} of {curves.images} images, {curves.model})"
    )
    compute = request.compute
    if point.method != "lavps" and compute.inference != "none":
        compute = replace(compute, inference=None)
    sampling = replace(
        request.sampling,
        method=point.method,
        preset=preset_of(point.num_steps),  # As they were measured.
        settings=(f"num_steps={point.num_steps}",),
        budget=None,
    )
    return replace(request, compute=compute, sampling=sampling)


def check_auto(request: Restoration) -> None:
    """Check that a method can be chosen.

    Raises:
        UsageError: A flag that it needs is missing, or one has no sense with it.
    """
    for wrong, message in (
        (request.sampling.budget is None, "--method auto needs a time."),
        (bool(request.sampling.settings), "--option belongs to one method."),
        (request.spread.engine != "local", "--method auto is for --engine local."),
    ):
        if wrong:
            raise UsageError(message, "For example:  --method auto --budget 5s")
