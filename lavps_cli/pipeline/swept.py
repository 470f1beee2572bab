"""Sweeps on a Ray cluster: measured by its workers, kept by the driver.

A worker measures one thing at a time, so that its times are those of a device that does nothing
else; workers on other devices than the first are left out, as their times would not compare.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from lavps_cli.bench.records import Record, Split
from lavps_cli.bench.runner import Measure, Todo, in_turn
from lavps_cli.errors import DeviceError
from lavps_cli.options import parse_count
from lavps_cli.pipeline.contenders import Contender
from lavps_cli.pipeline.measuring import Bench, Where
from lavps_cli.pipeline.pool import (
    Cluster,
    Done,
    UnfitError,
    cluster_of,
    connect,
    pooled,
    with_gpus,
)
from lavps_cli.pipeline.requests import BenchmarkRequest, CalibrationRequest, Compute, Spread
from lavps_cli.pipeline.results import Listener
from lavps_cli.pipeline.settings import Speed, probe
from lavps_cli.training.families import Family, parse_families

T = TypeVar("T")
R = TypeVar("R")
Q = TypeVar("Q", BenchmarkRequest, CalibrationRequest)


@dataclass(frozen=True, eq=False)
class Site:
    """What measures in one process, and who is compared."""

    bench: Bench
    contenders: Sequence[Contender] = ()

    def contender(self, name: str) -> Contender:
        return next(each for each in self.contenders if each.name == name)


@dataclass(frozen=True)
class Ask:
    """One configuration on some images of a split."""

    contender: str
    family: str
    options: Any
    places: tuple[int, ...]
    split: Split


@dataclass(frozen=True, eq=False)
class Workers:
    """The workers of a sweep."""

    cluster: Cluster
    open_site: Callable[[], Site]
    listener: Listener
    where: Where

    def run(self, tasks: Iterable[T], do: Callable[[Site, T], R]) -> Iterator[tuple[T, R]]:
        """Yield tasks with their results, as they are done; those that end workers are told."""
        opened = partial(_Worker, self.open_site, do, self.where)
        for each in pooled(tasks, opened, self.cluster, self.listener):
            if isinstance(each, Done):
                yield each.task, each.result
            else:
                self.listener.warn(
                    f"a measurement ended two workers and is left out: {each.reason}"
                )


class _Worker:
    def __init__(
        self, open_site: Callable[[], Site], do: Callable[[Site, Any], Any], where: Where | None
    ) -> None:
        self._site, self._do = open_site(), do
        bench = self._site.bench
        if where is not None and bench.where != where:
            raise UnfitError(
                f"a worker is left out: it computes with {bench.where.device}, the sweep with "
                f"{where.device}.",
                "Sweep on machines of one kind.",
            )
        self.about = f"{bench.weights.name} on {bench.where.device}, {bench.where.dtype}"

    def __call__(self, task: Any) -> Any:
        return self._do(self._site, task)


@contextmanager
def workers(
    spread: Spread, compute: Compute, open_site: Callable[[], Site], listener: Listener
) -> Iterator[Workers]:
    """Join a cluster for a sweep, and find out what computes there.

    Raises:
        LavpsError: The cluster cannot be reached, or the site not opened there.
    """
    cluster = cluster_of(spread, parse_count("--threads", compute.threads, 1))
    leave = connect(cluster)
    try:
        cluster = replace(with_gpus(cluster, spread, compute.device), ahead=1)
        opened: Callable[[], Callable[[None], Where]] = partial(_Worker, open_site, _where, None)
        for first in pooled(iter([None]), opened, replace(cluster, actors=1), listener):
            if not isinstance(first, Done):
                raise DeviceError(f"workers end: {first.reason}", "The logs:  /tmp/ray")
            where = first.result
        yield Workers(cluster, open_site, listener, where)
    finally:
        leave()


def _where(site: Site, _: None) -> Where:
    return site.bench.where


@contextmanager
def opened(
    request: Q,
    open_here: Callable[[Q], Site],
    open_there: Callable[[Q], Site],
    listener: Listener,
) -> Iterator[tuple[Site, "Means", Workers | None]]:
    """Open what measures: this process, or the workers of a cluster.

    Args:
        request: What is asked, of a sweep.
        open_here: Opens the site of this process, which keeps the records in any case.
        open_there: Opens that of a worker.
        listener: Told of losses.
    """
    if request.spread.engine == "local":
        yield open_here(request), means_here(request.size), None
        return
    compute = replace(request.compute, device="cpu", dtype="fp32")
    site = open_here(replace(request, compute=compute))
    with workers(request.spread, request.compute, partial(open_there, request), listener) as crew:
        yield replace(site, bench=replace(site.bench, elsewhere=crew.where)), means_of(crew), crew


@dataclass(frozen=True, eq=False)
class Means:
    """What a sweep measures with."""

    measure: Measure
    speed: Callable[[Contender], Speed]


def means_here(size: int) -> Means:
    """Return the means of this process."""
    return Means(in_turn, lambda each: probe(each.weights, each.method, size))


def means_of(crew: Workers) -> Means:
    """Return the means of a cluster."""

    def measure(todo: Iterable[Todo], split: Split) -> Iterator[Sequence[Record]]:
        asked = (
            Ask(cell.name, cell.config.task, cell.options, tuple(places), split)
            for cell, places in todo
        )
        for _, records in crew.run(asked, _measured):
            yield records

    def speed(contender: Contender) -> Speed:
        return next(speed for _, speed in crew.run(iter([contender.name]), _speed))

    return Means(measure, speed)


def _measured(site: Site, ask: Ask) -> list[Record]:
    family = family_of(ask.family, site.bench)
    cell = site.contender(ask.contender).cell(site.bench, ask.options, family)
    return list(cell.measure(ask.places, ask.split))


def _speed(site: Site, name: str) -> Speed:
    contender = site.contender(name)
    return probe(contender.weights, contender.method, site.bench.size)


def family_of(name: str, bench: Bench) -> Family:
    """Return a family by the name that records have for it."""
    (family,) = parse_families(name, bench.size)
    return family
