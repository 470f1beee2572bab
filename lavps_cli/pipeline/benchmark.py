"""`lavps benchmark`: methods at equal time, on the user's pictures, operators and machine."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from lavps_cli.bench.records import Book, Record, read
from lavps_cli.bench.runner import Cell, Left, measure_all
from lavps_cli.bench.summary import difference, summarise
from lavps_cli.bench.uncertainty import LEAST
from lavps_cli.errors import UsageError
from lavps_cli.images.writing import write_atomic
from lavps_cli.options import parse_seconds
from lavps_cli.pipeline.bench_data import load_pictures, parse_tasks
from lavps_cli.pipeline.calibration import model_key, stored_settings
from lavps_cli.pipeline.contenders import Contender, check_methods, open_contenders
from lavps_cli.pipeline.kept_pictures import keeper, load_pairs
from lavps_cli.pipeline.measuring import Bench, environment
from lavps_cli.pipeline.metrics import ImageMetric, open_metrics
from lavps_cli.pipeline.model import open_weights, use_threads
from lavps_cli.pipeline.pool import check_engine
from lavps_cli.pipeline.requests import BenchmarkRequest
from lavps_cli.pipeline.results import Listener, Progress, Said
from lavps_cli.pipeline.sampling import sampler_options
from lavps_cli.pipeline.set_metrics import CMMD, Cmmd, told
from lavps_cli.pipeline.settings import Speed, ladder, trained_ratio, units, within
from lavps_cli.pipeline.swept import Means, Site, opened
from lavps_cli.pipeline.thresholds import Entry, check_thresholds, failed_cells, parse_threshold
from lavps_cli.storage.places import Place, located
from lavps_cli.training.families import Family

RECORDS = "records.jsonl"
UNCERTAINTY = {
    "coverage90": "share of pixels within the central interval of 90 % of the samples",
    "calibration": "mean difference of the ranks' distribution from the uniform one; 0 is best",
}
CANDIDATES = 3
VALIDATION_SHARE = 0.4
"""Of the time of a run with budgets."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a run of `benchmark` found."""

    output: str
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    entries: list[Entry]
    complete: bool
    missing: int
    """Measurements that did not fit into the time."""
    failed: list[str]
    """Thresholds that were not met, and cells that stayed empty."""
    model: str = ""
    """Which weights the methods have in common, by their digests."""
    size: int = 0
    """Side of the pictures."""

    @property
    def told(self) -> dict[str, Any]:
        return {"type": "benchmark"} | asdict(self)


def benchmark(request: BenchmarkRequest, listener: Listener) -> Benchmark:
    """Measure, as far as the time allows, what has no record yet, and sum it up.

    Raises:
        LavpsError: Anything a user can act on; what was measured is kept.
    """
    check_methods(request.methods)
    if 0 < request.coverage < LEAST:
        raise UsageError(
            f"--coverage {request.coverage}: intervals of 90 % need more samples.",
            f"Give at least:  --coverage {LEAST}",
        )
    budgets = [parse_seconds("--budget", text) for text in request.budgets]
    if request.curve is not None and budgets:
        raise UsageError(
            "--curve measures all numbers of steps, --budget chooses one.", "Leave either out."
        )
    thresholds = [parse_threshold(text) for text in request.fail_under]
    families = parse_tasks(request.tasks, request.ood, request.size)
    limit = parse_seconds("--max-time", request.max_time)
    until = time.monotonic() + limit
    check_engine(request.spread)
    metrics = _metrics(request)
    for metric in metrics:
        if metric.score is None:
            listener.warn(f"{metric.name} is left out: {metric.reason}")
    check_thresholds(thresholds, metrics)
    old = read([_records(request.compare)]) if request.compare else []
    if request.compare and not old:
        raise UsageError(
            f"--compare {request.compare}: there are no records.", "Give the -o of an earlier run."
        )
    output = located(request.output)
    book = Book(output / RECORDS)
    open_here = partial(_told_site, metrics, listener)
    with opened(request, open_here, _worker, listener) as (site, means, _):
        bench = site.bench
        run = _Run(bench, book, families, site.contenders, listener, until, means, request.settings)
        chosen, left = run.cells(budgets, request, limit)
    entries = [
        _entry(run, budget, family, contender, cell, metrics, old)
        for budget, family, contender, cell in chosen
    ]
    with_cmmd = CMMD in _names(request)
    if with_cmmd:
        entries = _with_cmmd(entries, output / "pictures", bench.pictures.names["test"])
    result = Benchmark(
        output=str(output),
        environment=environment(bench.weights, bench.where),
        metrics=[metric.told for metric in metrics]
        + ([told()] if with_cmmd else [])
        + [{"name": n, "about": a} for n, a in UNCERTAINTY.items() if request.coverage],
        entries=entries,
        complete=left.complete,
        missing=left.missing,
        failed=failed_cells(entries, thresholds, metrics),
        model=model_key(bench.weights),
        size=request.size,
    )
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": 1} | result.told, ensure_ascii=False, indent=1)
    write_atomic(output / "benchmark.json", text.encode())
    return result


def _worker(request: BenchmarkRequest) -> Site:
    return _site(request, _metrics(request), Said())


def _site(request: BenchmarkRequest, metrics: Sequence[ImageMetric], listener: Listener) -> Site:
    use_threads(request.compute.threads)
    weights = open_weights(request.compute)
    contenders = open_contenders(request.methods, request.compute, weights)
    pictures = load_pictures(request.dataset, request.size, request.images, listener)
    every = request.save_pictures or CMMD in _names(request)
    bench = Bench(
        weights=weights,
        pictures=pictures,
        metrics=metrics,
        size=request.size,
        seed=request.seed,
        coverage=request.coverage,
        keep=keeper(located(request.output) / "pictures", pictures.names["test"], every=every),
    )
    return Site(bench, contenders)


def _told_site(
    metrics: Sequence[ImageMetric], listener: Listener, request: BenchmarkRequest
) -> Site:
    """Return the site of this process, and tell what it lacks."""
    site = _site(request, metrics, listener)
    for each in site.contenders:
        if each.method == "lavps" and each.weights.inference_folder is None:
            listener.warn(f"there is no inference model for {each.weights.name}; lavps is mgdm.")
    return site


def _names(request: BenchmarkRequest) -> list[str]:
    return [name.strip() for name in request.metrics.split(",") if name.strip()]


def _metrics(request: BenchmarkRequest) -> Sequence[ImageMetric]:
    names = [name for name in _names(request) if name != CMMD]
    return open_metrics([*names, *request.own_metrics], offline=request.compute.offline)


def _records(text: str) -> Place:
    path = located(text)
    if text.endswith(RECORDS) or not path.is_dir():
        return path
    return path / RECORDS


Chosen = tuple[float | None, Family, Contender, Cell | None]


@dataclass(frozen=True, eq=False)
class _Run:
    """One run: what is measured, until when."""

    bench: Bench
    book: Book
    families: list[Family]
    contenders: Sequence[Contender]
    listener: Listener
    until: float
    means: Means
    settings: tuple[str, ...] = ()

    def cells(
        self, budgets: Sequence[float], request: BenchmarkRequest, limit: float
    ) -> tuple[list[Chosen], Left]:
        """Choose settings, measure them on the test images, and return both."""
        speeds = {each.name: self.means.speed(each) for each in self.contenders}
        chosen: list[Chosen] = []
        if not budgets:
            chosen = [
                (None, family, each, each.cell(self.bench, options, family))
                for family in self.families
                for each in self.contenders
                for options in _asked(each, request)
            ]
        spent = time.monotonic()
        for budget in budgets:
            until = spent + limit * VALIDATION_SHARE * (budgets.index(budget) + 1) / len(budgets)
            chosen += self._validated(budget, speeds, until)
        cells = list({c.config.digest: c for *_, c in chosen if c is not None}.values())
        if not cells:
            return chosen, Left(0, 0)
        return chosen, self._measure(cells, "test", self.until)

    def _measure(self, cells: list[Cell], split: Any, until: float) -> Left:
        began = time.monotonic()

        def tell(record: Record, done: int, total: int) -> None:
            if record.error is not None:
                self.listener.warn(f"{record.task}, {record.image}: {record.error}")
            spent = time.monotonic() - began
            expected = min(spent / done * (total - done), max(until - time.monotonic(), 0.0))
            self.listener.progress(
                Progress(
                    input=f"{split} {record.method} {record.task}", index=1, count=1, done=done,
                    total=total, seconds_left=expected,
                )
            )  # fmt: skip

        images, seed = self.bench.pictures.images(split), self.bench.seed
        return measure_all(
            cells, images, seed, self.book, until=until, on_record=tell, measure=self.means.measure
        )

    def _validated(self, budget: float, speeds: dict[str, Speed], until: float) -> list[Chosen]:
        """Return the best settings of each method that fit a budget, by the validation images."""
        bench, room = self.bench, until - time.monotonic()
        options: dict[tuple[str, str], list[Any]] = {}
        for most in range(CANDIDATES, 0, -1):
            options = {
                (family.name, each.name): within(
                    each.weights, each.method, self._known(each, family), speeds[each.name],
                    budget, most,
                )
                for family in self.families
                for each in self.contenders
            }  # fmt: skip
            cost = sum(
                speeds[each.name].predict(units(each.weights, each.method, setting))
                for family in self.families
                for each in self.contenders
                for setting in options[family.name, each.name]
            )
            if cost <= room:
                break
        chosen: list[Chosen] = []
        cells = {
            (family.name, each.name): [
                each.cell(bench, setting, family) for setting in options[family.name, each.name]
            ]
            for family in self.families
            for each in self.contenders
        }
        several = [cell for group in cells.values() if len(group) > 1 for cell in group]
        if several:
            self._measure(several, "validation", until)
        for family in self.families:
            for each in self.contenders:
                best = self._best(cells[family.name, each.name], budget)
                chosen.append((budget, family, each, best))
        return chosen

    def _known(self, contender: Contender, family: Family) -> list[Any]:
        """Return the settings a method may use: of its stored front, else the usual ones."""
        weights, method = contender.weights, contender.method
        if self.settings:
            return ladder(weights, method, self.settings)
        return stored_settings(weights, method, family.name) or ladder(weights, method)

    def _best(self, cells: list[Cell], budget: float) -> Cell | None:
        """Return the cell with the best validation result whose measured time fits."""
        if len(cells) <= 1:
            return cells[0] if cells else None
        rated: list[tuple[float, int, Cell]] = []
        for cell in cells:
            records = self.book.of(cell.config.digest, "validation")
            score = self._score(records)
            fits = records and statistics.median(r.seconds for r in records) <= budget
            if fits and score is not None:
                rated.append((score, -len(rated), cell))
        # The cheapest one stands in where none was found to fit: its test tells the time.
        return max(rated, key=lambda each: each[:2])[2] if rated else cells[0]

    def _score(self, records: Sequence[Record]) -> float | None:
        """Return the mean of the metric that decides: LPIPS if it is to be had, else the first."""
        usable = [metric for metric in self.bench.metrics if metric.score is not None]
        chief = next((m for m in usable if m.name == "lpips"), usable[0] if usable else None)
        if chief is None:
            return None
        found = [v for r in records if (v := r.metrics.get(chief.name)) is not None]
        return (1 if chief.higher else -1) * statistics.mean(found) if found else None


def _asked(contender: Contender, request: BenchmarkRequest) -> list[Any]:
    """Return the settings of a method that are measured without a budget."""
    weights, method = contender.weights, contender.method
    if request.curve is not None:
        known = ladder(weights, method, request.settings)
        fit = [each for each in known if units(weights, method, each) <= request.curve]
        return fit or known[:1]
    trained = trained_ratio(weights, method)
    return [sampler_options(method, request.preset, request.settings, trained)]


def _entry(
    run: _Run,
    budget: float | None,
    family: Family,
    contender: Contender,
    cell: Cell | None,
    metrics: Sequence[ImageMetric],
    old: Sequence[Record],
) -> Entry:
    seen, task, size = contender.seen(family), family.name, run.bench.size
    records = [] if cell is None else _of_cell(run, cell)
    if cell is None or not records:
        return Entry(budget=budget, seen=seen, row=None, method=contender.name, task=task)
    before = [r for r in old if (r.method, r.task, r.size) == (contender.method, task, size)]
    options = {r.config for r in before if r.options == records[0].options} or {
        r.config for r in before
    }
    same = [r for r in before if r.config in options]
    gains = {m.name: difference(same, records, m.name, m.higher) for m in metrics} if same else {}
    names = [metric.name for metric in metrics]
    row = summarise(records, names + (list(UNCERTAINTY) if run.bench.coverage else []))
    return Entry(budget=budget, seen=seen, row=row, method=contender.name, task=task, gains=gains)


def _with_cmmd(entries: list[Entry], folder: Place, images: Sequence[str]) -> list[Entry]:
    """Return the entries with CMMD between the pictures that were kept and the clean ones."""
    network, found = Cmmd(), []
    for entry in entries:
        if entry.row is not None:
            sets = network.statistics(*load_pairs(folder, entry.row.config, images))
            row = replace(entry.row, metrics=entry.row.metrics | sets)
            entry = replace(entry, row=row)
        found.append(entry)
    return found


def _of_cell(run: _Run, cell: Cell) -> list[Record]:
    names, digest = run.bench.pictures.names["test"], cell.config.digest
    found = [run.book.get((digest, name, run.bench.seed)) for name in names]
    return [record for record in found if record is not None]
