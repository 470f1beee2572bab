"""`lavps calibrate-speedup`: the fronts of MGDM and LAVPS, and the speedup at matched quality."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lavps_cli import catalog
from lavps_cli.bench.grid import grid
from lavps_cli.bench.pareto import pareto_front
from lavps_cli.bench.records import Book, Record
from lavps_cli.bench.runner import measure_all
from lavps_cli.bench.speedup import Match, compare, unmatched
from lavps_cli.catalog import CostName
from lavps_cli.errors import UsageError
from lavps_cli.images.writing import write_atomic
from lavps_cli.options import parse_seconds
from lavps_cli.pipeline import calibration
from lavps_cli.pipeline.bench_data import parse_tasks
from lavps_cli.pipeline.benchmark import RECORDS
from lavps_cli.pipeline.calibrating import METHODS, open_metric, opened_bench
from lavps_cli.pipeline.calibration import Calibration, FrontPoint, kind_of, model_key
from lavps_cli.pipeline.measuring import Bench, environment
from lavps_cli.pipeline.metrics import ImageMetric
from lavps_cli.pipeline.pool import check_engine
from lavps_cli.pipeline.requests import CalibrationRequest
from lavps_cli.pipeline.results import Listener, Progress
from lavps_cli.pipeline.settings import trained_ratio
from lavps_cli.pipeline.sweep import Candidate, Sweep
from lavps_cli.pipeline.swept import Means
from lavps_cli.storage.places import located
from lavps_cli.training.families import Family

MARGINS = {"lpips": 0.003, "psnr": 0.1, "ssim": 0.005}
VALIDATION_SHARE = 0.6
PUBLISHED = {
    "sr": "1.73, 1.41 (FFHQ); 2.01, 2.15 (ImageNet)",
    "deblur": "1.27, 1.25 (FFHQ); 1.20, 1.34 (ImageNet)",
    "inpaint": "1.43, 2.03, 2.21 (ImageNet)",
}
"""Table 1 of the paper: its speedups, at 256x256 on its GPU."""


@dataclass(frozen=True, kw_only=True)
class Speedups:
    """What a run of `calibrate-speedup` found."""

    output: str
    environment: dict[str, Any]
    task: str
    size: int
    metric: dict[str, Any]
    margin: float
    level: float
    validation_images: int
    test_images: int
    points: dict[str, list[dict[str, Any]]]
    """By method: options, seconds, units, loss; those on the front are marked."""
    matches: list[Match]
    published: str | None
    training_seconds: float | None
    break_even: list[float | None]
    """After how many images the training is paid back, by match."""
    saved: dict[str, float]
    complete: bool
    stored: str | None

    @property
    def told(self) -> dict[str, Any]:
        return {"type": "calibration"} | asdict(self)

    def by_gradient_steps(self) -> list[dict[str, Any]]:
        """Return what G_end brings, all else equal (Figure 7): rows of both methods' points.

        Of the settings that both methods were tried with at several G_end, those of the most.
        """
        groups: dict[str, dict[int, dict[str, Any]]] = {}
        for method, points in self.points.items():
            for point in points:
                same = {k: v for k, v in point["options"].items() if k != "grad_steps_end"}
                group = groups.setdefault(json.dumps(same, sort_keys=True), {})
                group.setdefault(point["options"]["grad_steps_end"], {})[method] = point
        whole = [
            {end: both for end, both in group.items() if set(both) == set(METHODS)}
            for group in groups.values()
        ]
        widest = max(whole, key=len, default={})
        if len(widest) < 2:
            return []
        return [{"grad_steps_end": end} | widest[end] for end in sorted(widest)]


def calibrate(request: CalibrationRequest, listener: Listener) -> Speedups:
    """Sweep, match and test; what has records already is not measured again.

    Raises:
        LavpsError: Anything a user can act on; what was measured is kept.
    """
    limit = parse_seconds("--max-time", request.max_time)
    start = time.monotonic()
    settings = grid(request.grid)
    training = parse_seconds("--training-time", request.training_time)
    tasks = parse_tasks(request.task, "none", request.size)
    if len(tasks) > 1:
        raise UsageError(
            f"--task {request.task}: one at a time.", f"For example:  --task {tasks[0].name}"
        )
    family = tasks[0]
    metric = open_metric(request, listener)
    margin = MARGINS.get(metric.name) if request.margin is None else request.margin
    if margin is None:
        raise UsageError(
            f"--metric {metric.name} needs a margin: how much worse is not worse?",
            "Give it:  --margin 0.01",
        )
    check_engine(request.spread)
    output = located(request.output)
    book = Book(output / RECORDS)
    with opened_bench(request, metric, listener) as (bench, means, measure):
        run = _Run(bench, book, family, metric, listener, means, request.cost)
        candidates = run.candidates(settings)
        sweep = Sweep(bench, family, book, run.loss, run.cost, measure=measure)
        names = bench.pictures.names["validation"]
        watch = _Watch(listener, family.name, len(names), start, limit)
        alive, images = sweep.run(
            candidates, until=start + VALIDATION_SHARE * limit, on_image=watch.image
        )
        points = run.points(candidates)
        fronts = {method: run.front([c for c in alive if c.method == method]) for method in METHODS}
        matches, tested, complete = run.matches(
            alive, fronts["mgdm"], margin, request.level, start + limit
        )
    stored = None
    if request.save:
        stored = str(calibration.save(_stored(run, fronts, images)))
    result = Speedups(
        output=str(output),
        environment=environment(bench.weights, bench.where),
        task=family.name,
        size=request.size,
        metric=metric.told,
        margin=margin,
        level=request.level,
        validation_images=images,
        test_images=tested,
        points={
            method: [
                point | {"front": any(c.config.digest == point["config"] for c in fronts[method])}
                for point in points[method]
            ]
            for method in METHODS
        },
        matches=matches,
        published=PUBLISHED.get(kind_of(family.name)),
        training_seconds=None if training == float("inf") else training,
        break_even=[match.break_even(training) for match in matches]
        if training < float("inf")
        else [],
        saved=asdict(sweep.saved) | {"factor": sweep.saved.factor},
        complete=complete and images == len(names),
        stored=stored,
    )
    text = json.dumps({"schema": 1} | result.told, ensure_ascii=False, indent=1)
    write_atomic(output / "calibration.json", text.encode())
    return result


@dataclass(frozen=True, eq=False)
class _Run:
    bench: Bench
    book: Book
    family: Family
    metric: ImageMetric
    listener: Listener
    means: Means
    by: CostName = "time"

    def candidates(self, settings: dict[str, list[dict[str, Any]]]) -> list[Candidate]:
        """Return the configurations of both methods.

        Raises:
            UsageError: An option is unknown or its value not allowed.
        """
        found: dict[str, Candidate] = {}
        for method in METHODS:
            cls = catalog.resolve(catalog.sampler(method).options)
            trained = trained_ratio(self.bench.weights, method)
            for row in settings[method]:
                if unknown := set(row) - set(cls.__dataclass_fields__):
                    raise UsageError(
                        f"--grid: there is no option {sorted(unknown)[0]!r}.",
                        "Names:  lavps models list --samplers",
                    )
                options = cls(**row)
                if trained is not None and options.switch_ratio < trained:
                    continue  # The inference model did not learn such early times.
                config = self.bench.config(method, options, self.family)
                found.setdefault(config.digest, Candidate(method, options, config))
        return list(found.values())

    @property
    def sign(self) -> int:
        return -1 if self.metric.higher else 1

    def loss(self, record: Record) -> float | None:
        value = record.metrics.get(self.metric.name)
        return None if value is None else self.sign * value

    def cost(self, record: Record) -> float:
        """Return what an image costs: what fronts and the fastest setting are chosen by."""
        return record.seconds if self.by == "time" else float(record.units)

    def point(self, candidate: Candidate) -> tuple[float, float] | None:
        """Return the median cost and mean loss of a candidate on the validation images."""
        records = self.book.of(candidate.config.digest, "validation")
        losses = [v for r in records if (v := self.loss(r)) is not None]
        if not losses:
            return None
        return statistics.median(self.cost(r) for r in records), statistics.mean(losses)

    def points(self, candidates: Sequence[Candidate]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
        for each in candidates:
            if (point := self.point(each)) is not None:
                records = self.book.of(each.config.digest, "validation")
                found[each.method].append(
                    {
                        "config": each.config.digest,
                        "options": each.config.options,
                        "seconds": statistics.median(r.seconds for r in records),
                        "units": statistics.fmean(r.units for r in records),
                        "value": self.sign * point[1],
                        "sd": self._spread(records),
                        "images": len(records),
                    }
                )
        return found

    def _spread(self, records: Sequence[Record]) -> float | None:
        """Return the standard deviation of the metric over images."""
        losses = [v for r in records if (v := self.loss(r)) is not None]
        return statistics.stdev(losses) if len(losses) > 1 else None

    def front(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        rated = [(c, p) for c in candidates if (p := self.point(c)) is not None]
        return [rated[i][0] for i in pareto_front([p for _, p in rated])]

    def matches(
        self,
        alive: Sequence[Candidate],
        front: Sequence[Candidate],
        margin: float,
        level: float,
        until: float,
    ) -> tuple[list[Match], int, bool]:
        """Return the match of every point of MGDM's front, by the test images."""
        fast = [(c, p) for c in alive if c.method == "lavps" and (p := self.point(c)) is not None]
        fast.sort(key=lambda each: each[1][0])
        matches, complete, tested = [], True, 0
        for place, reference in enumerate(front, 1):
            point = self.point(reference)
            assert point is not None
            complete &= self._tested([reference], until)
            base = self.book.of(reference.config.digest, "test")
            tested = max(tested, len(base))
            match = None
            for candidate, (_, loss) in fast:
                # Twice the margin: what misses by more on validation is not tried.
                if loss > point[1] + 2 * margin:
                    continue
                # Both again, in turn, on the images that either lacks.
                complete &= self._tested([reference, candidate], until)
                records = self.book.of(candidate.config.digest, "test")
                match = compare(
                    self.book.of(reference.config.digest, "test"), records, self.metric.name,
                    sign=self.sign, margin=margin, level=level,
                )  # fmt: skip
                if match is not None:
                    break
            matches.append(match or unmatched(base, self.metric.name))
            self.listener.note(
                f"{place} of {len(front)} points of MGDM's front: "
                + (f"{self._gain(match):.2f} times faster" if match else "no match")
            )
        return matches, tested, complete

    def _gain(self, match: Match) -> float:
        gain = match.speedup if self.by == "time" else match.predicted
        return gain or 0.0

    def _tested(self, several: Sequence[Candidate], until: float) -> bool:
        cells = [self.bench.cell(c.method, c.options, self.family) for c in several]
        images = self.bench.pictures.images("test")
        return measure_all(
            cells, images, self.bench.seed, self.book, until=until, batch=self.bench.batch,
            measure=self.means.measure,
        ).complete  # fmt: skip


def _stored(run: _Run, fronts: dict[str, list[Candidate]], images: int) -> Calibration:
    weights, where = run.bench.weights, run.bench.where

    def told(candidate: Candidate) -> FrontPoint:
        point = run.point(candidate)
        assert point is not None
        records = run.book.of(candidate.config.digest, "validation")
        return FrontPoint(
            options=candidate.config.options,
            units=statistics.fmean(r.units for r in records),
            seconds=statistics.median(r.seconds for r in records),
            loss=point[1],
        )

    first = next(c for front in fronts.values() for c in front)
    return Calibration(
        device=where.device,
        dtype=where.dtype,
        threads=first.config.threads,
        model=model_key(weights),
        task=run.family.name,
        size=run.bench.size,
        metric=run.metric.name,
        images=images,
        fronts={method: [told(c) for c in front] for method, front in fronts.items()},
    )


@dataclass(frozen=True)
class _Watch:
    """Tells how far the sweep is."""

    listener: Listener
    task: str
    total: int
    start: float
    limit: float

    def image(self, done: int, left: int) -> None:
        spent = time.monotonic() - self.start
        ahead = min(spent / done * (self.total - done), max(self.limit - spent, 0.0))
        self.listener.progress(
            Progress(
                input=f"{self.task}, {left} configurations", index=1, count=1, done=done,
                total=self.total, seconds_left=ahead,
            )
        )  # fmt: skip
