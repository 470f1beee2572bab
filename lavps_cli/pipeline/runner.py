"""What is done with each picture of a command: read, sample, write, in three threads."""

import operator
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from lavps_cli.errors import LavpsError, OutputError
from lavps_cli.images.opening import size_of
from lavps_cli.images.picture import Picture
from lavps_cli.images.writing import with_writable_metadata
from lavps_cli.options import parse_count, parse_seconds
from lavps_cli.pipeline.alternation import alternated
from lavps_cli.pipeline.calibration import Costs, costs, expected_seconds, probe_size
from lavps_cli.pipeline.case import read_case
from lavps_cli.pipeline.deliver import Finished, deliver
from lavps_cli.pipeline.digest import work_digest
from lavps_cli.pipeline.doubts import cut_depth, poor_fit
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.journal import Entry, Journals, Stamp, is_untouched, stamps
from lavps_cli.pipeline.model import Tiling, Weights
from lavps_cli.pipeline.overlap import LARGE, InWork
from lavps_cli.pipeline.paths import (
    TEMPLATE,
    Targets,
    claim,
    make_folders,
    name_of,
    places_of,
    plan_targets,
)
from lavps_cli.pipeline.plan import plan
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.ready import Early, Noted, Ready, read_content
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes, Progress, Result
from lavps_cli.pipeline.run import Posterior, provide, residuals, sample_posterior
from lavps_cli.pipeline.sampling import sampler_options
from lavps_cli.pipeline.together import group_size, sample_together
from lavps_cli.pipeline.transparency import sample_alpha
from lavps_cli.storage.places import Place, located

_WRITERS = 8
"""Threads that write the files of a batch, and share its journal's syncs."""


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_WRITERS)


def _skipped(source: str, output: str, task: str) -> Result:
    return Result(status="skipped", input=source, output=output, task=task)


def _first_file(entry: Entry, job: Job) -> str:
    """Return the first result of an entry, named as the command names it."""
    sampling, place = job.request.sampling, located(job.place)
    (path, _) = entry.files[-1 if sampling.mean else -sampling.samples]
    return str(path if "{" in job.place else place.with_name(path.name))


def _is_input(entry: Entry, job: Job) -> bool:
    """Return whether an entry is of this input, as it looks now."""
    path = located(job.source.path).absolute()
    return entry.stamp is not None and entry.input == str(path) and is_untouched(path, entry.stamp)


@dataclass(frozen=True, eq=False)
class Run:
    """One command: its weights, and the names it has used so far."""

    request: Restoration
    jobs: tuple[Job, ...]
    listener: Listener
    pipes: Pipes
    weights: Weights
    journals: Journals = field(default_factory=Journals)
    claimed: dict[Place, str] = field(default_factory=dict)
    costs: dict[tuple[str, int], Costs] = field(default_factory=dict)
    """By task and `probe_size`, found when needed."""
    options: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict)
    """By preset and settings."""
    most_together: dict[tuple[int, int], int] = field(default_factory=dict)
    """By shape, how many pictures memory lets be sampled at once, as far as it is known."""
    most_alone: dict[tuple[int, int], tuple[int, Tiling]] = field(default_factory=dict)
    """By shape, how many samples of a picture, and in what windows, where memory ran out."""
    early: dict[int, Early] = field(default_factory=dict)
    """Of jobs, by their index; held until their turn."""

    @cached_property
    def inputs(self) -> Container[Place]:
        return places_of(tuple(job.source.path for job in self.jobs))

    def options_of(self, request: Restoration) -> Any:
        """Return the sampler's options of a request without a budget.

        Raises:
            UsageError: A setting is wrong.
        """
        sampling = request.sampling
        key = (sampling.preset, sampling.settings)
        if key not in self.options:
            self.options[key] = sampler_options(
                sampling.method, sampling.preset, sampling.settings, self.weights.switch_ratio
            )
        return self.options[key]

    @lru_cache(maxsize=8)  # noqa: B019  # A run lasts as long as the command.
    def _settings(self, request: Restoration) -> str:
        return work_digest(request, self.weights, self.options_of(request))

    def read(self, job: Job, work: InWork) -> Ready | list[Outcome]:
        """Read one picture, or tell why there is nothing to restore."""
        record = Noted()
        try:
            return self._read(job, work, record)
        except LavpsError as error:
            return [self._failed(job, error, record)]

    def _read(self, job: Job, work: InWork, record: Noted) -> Ready | list[Outcome]:
        source, request, existing = job.source.path, job.request, job.request.output.existing
        entry: Entry | None = None
        early = self.early.pop(job.index, None)
        record.journal = self.journals.at(job.journal)
        if record.journal is not None:
            record.settings = self._settings(replace(request, inputs=()))
            entry = record.journal.known(job.place, record.settings)
        if existing == "resume" and entry is not None and _is_input(entry, job) and entry.is_done:
            return [_skipped(source, _first_file(entry, job), entry.task)]
        if early is None:
            content, record.stamp = read_content(source, self.pipes)
        else:
            content, record.stamp = early.content, early.stamp
        if entry is not None and entry.stamp is not None and record.stamp is not None:
            if entry.stamp.sha256 != record.stamp.sha256:
                entry = None  # Made of another picture.
            elif existing == "resume" and entry.is_done:
                return [_skipped(source, _first_file(entry, job), entry.task)]
        if size_of(content) > LARGE:
            work.wait()
        case = read_case(content, name_of(source), request) if early is None else early.case
        del content, early
        targets = self._targets(job, case.picture, case.seen)
        if existing == "resume" and record.journal is None:
            existing = "error"  # Nothing tells what made it.
        owned = frozenset[Place]() if entry is None else entry.owned
        if not claim(targets, source, existing, self.claimed, self.inputs, owned):
            return [_skipped(source, str(targets.files[0]), case.seen.degradation.task)]
        tile = parse_count("--tile", self.request.compute.tile, 0)
        tiling = self.weights.tiling(*case.seen.shape, tile, self.request.compute.overlap)
        return Ready(job=job, case=case, targets=targets, tiling=tiling, record=record)

    def _failed(self, job: Job, error: LavpsError, record: Noted) -> Failure:
        told = ""
        if record.journal is not None and not self.request.dry_run:
            entry = self._entry(job, record, error=error.message)
            with suppress(OutputError):  # A full disk is told by the picture's own error.
                record.journal.add(entry)
                told = str(record.journal.path)
        return Failure(input=job.source.path, error=error, journal=told)

    def _entry(
        self,
        job: Job,
        record: Noted,
        files: tuple[tuple[Place, Stamp], ...] = (),
        task: str = "",
        error: str = "",
    ) -> Entry:
        return Entry(
            place=job.place,
            input=job.source.path,
            settings=record.settings,
            stamp=record.stamp,
            files=files,
            task=task,
            error=error,
        )

    def room(self, ready: Ready | list[Outcome]) -> int:
        """Return with how many others a picture may be sampled, itself included."""
        if isinstance(ready, list) or self.request.dry_run:
            return 1
        sampling, case = ready.job.request.sampling, ready.case
        apart = sampling.budget is not None or case.picture.alpha is not None
        given = parse_count("--batch-size", self.request.compute.batch_size, 1)
        size = 1 if apart else group_size(case.seen, self.weights, sampling, given)
        return min(size, self.most_together.get(case.seen.shape, size))

    def restore(self, group: "list[Ready | list[Outcome]]") -> Callable[[], list[Outcome]]:
        """Sample the pictures of a group, and return what writes them and tells the outcomes."""
        if isinstance(group[0], list):
            told = group[0]
            return lambda: told
        ready = [each for each in group if isinstance(each, Ready)]
        for each in ready:
            self._tell(each)
        if self.request.dry_run:
            planned: list[Outcome] = [self._plan(each) for each in ready]
            return lambda: planned
        posteriors: Sequence[Posterior | None] = [None] * len(ready)
        started = time.monotonic()
        if len(ready) > 1:
            first = ready[0]
            posteriors = sample_together(
                [each.case.seen for each in ready],
                self.weights,
                first.tiling,
                first.job.request.sampling,
                self.options_of(first.job.request),
                self._watch(ready, started),
                self.listener.warn,
                most=self.most_together,
            )
        seconds = (time.monotonic() - started) / len(ready)
        calls = [
            self._sample(each, posterior, seconds)
            for each, posterior in zip(ready, posteriors, strict=True)
        ]
        if len(calls) == 1:
            return calls[0]
        # Disks and encoders are not the faster for being asked one after the other.
        return lambda: [each for told in _writers().map(operator.call, calls) for each in told]

    def _tell(self, ready: Ready) -> None:
        name, seen = name_of(ready.job.source.path), ready.case.seen
        for warning in ready.case.warnings:
            self.listener.warn(warning)
        self.listener.detail(
            f"{name}: {seen.degradation.task}, noise {seen.sigma_y * 127.5:.1f}/255 "
            f"({seen.noise_source}), scene {seen.shape[1]}x{seen.shape[0]}, "
            f"tile {ready.tiling.tile}"
        )

    def _sample(
        self, ready: Ready, posterior: Posterior | None, seconds: float
    ) -> Callable[[], list[Outcome]]:
        """Sample one picture if it is not yet, and return what writes it."""
        request, case, seen = ready.job.request, ready.case, ready.case.seen
        source = ready.job.source.path
        name, sampling = name_of(source), request.sampling
        started = time.monotonic()
        try:
            options, _ = self._options_for(request, seen)
            make_folders(ready.targets)
            if request.problem.blind:
                seen = alternated(seen, self.weights, sampling)
            if posterior is None:
                posterior = sample_posterior(
                    seen,
                    self.weights,
                    ready.tiling,
                    sampling,
                    options,
                    batch=parse_count("--batch-size", request.compute.batch_size, 1),
                    on_step=self._watch([ready], started),
                    warn=lambda text: self.listener.warn(f"{name}: {text}"),
                    most=self.most_alone,
                )
                seconds = time.monotonic() - started
            posterior = replace(posterior, x=seen.explained(posterior.x))
            drawn = posterior.x.mean(0, keepdim=True) if sampling.mean else posterior.x
            residual = residuals(seen, drawn)
            doubts = [
                *cut_depth(name, case.picture, ready.targets),
                *poor_fit(name, seen, max(residual)),
            ]
            for warning in doubts:
                self.listener.warn(warning)
            finished = Finished(
                source=source,
                picture=with_writable_metadata(case.picture, ready.targets.format),
                seen=seen,
                clean=case.clean,
                targets=ready.targets,
                posterior=posterior,
                alpha=sample_alpha(request, case, self.weights, ready.tiling, options),
                residual=residual,
                seconds=seconds,
                warnings=case.warnings + doubts,
            )
        except LavpsError as error:
            failure = self._failed(ready.job, error, ready.record)
            return lambda: [failure]
        return partial(self._write, ready, finished, options)

    def _write(self, ready: Ready, finished: Finished, options: Any) -> list[Outcome]:
        job, record = ready.job, ready.record

        def note(parts: Mapping[Place, Path | bytes]) -> None:
            # Before the names are given: what a kill leaves is then known to be ours.
            if record.journal is not None:
                task = finished.seen.degradation.task
                record.journal.add(self._entry(job, record, stamps(parts), task))

        try:
            return [*deliver(finished, job.request, self.weights, options, self.pipes, note)]
        except LavpsError as error:
            return [self._failed(job, error, record)]

    def _options_for(self, request: Restoration, seen: Observation) -> tuple[Any, float | None]:
        """Return the options for one picture, and the seconds expected of one sample.

        Raises:
            UsageError: A budget is too small.
        """
        sampling, task = request.sampling, seen.degradation.task
        pixels = seen.shape[0] * seen.shape[1]
        if sampling.budget is None:
            options = self.options_of(request)
            if not self.request.dry_run:
                return options, None
            return options, expected_seconds(self.weights, sampling.method, task, options, pixels)
        kind = (task, probe_size(pixels))
        if kind not in self.costs:
            self.costs[kind] = costs(self.weights, sampling.method, task, pixels, sampling.settings)
        known = self.costs[kind]
        budget = parse_seconds("--budget", sampling.budget) / sampling.samples
        options, expected = known.choose(budget, pixels)
        self.listener.detail(f"{options.num_steps} steps, {expected:.1f} s, by {known.source}")
        return options, expected

    def _watch(self, ready: Sequence[Ready], started: float) -> Callable[[int, int], None]:
        """Return what tells the listener about every step."""
        name = name_of(ready[0].job.source.path)
        if len(ready) > 1:
            name += f" and {len(ready) - 1} more"

        def on_step(done: int, total: int) -> None:
            left = (time.monotonic() - started) * (total - done) / done
            self.listener.progress(
                Progress(
                    input=name,
                    index=ready[0].job.index,
                    count=ready[0].job.count,
                    done=done,
                    total=total,
                    seconds_left=left,
                )
            )

        return on_step

    def _targets(self, job: Job, picture: Picture, seen: Observation) -> Targets:
        sampling = job.request.sampling
        return plan_targets(
            job.source.path,
            job.request.output,
            picture,
            default=TEMPLATE,
            task=seen.degradation.task,
            seed=sampling.seed,
            count=1 if sampling.mean else sampling.samples,
            uncertainty=sampling.uncertainty,
            bounds=sampling.intervals is not None,
            kernel=job.request.problem.blind,
            tree=job.source.tree,
            stem=job.source.stem,
            makes_folders=job.line > 0,
        )

    def _plan(self, ready: Ready) -> Outcome:
        sampling = ready.job.request.sampling
        try:
            options, expected = self._options_for(ready.job.request, ready.case.seen)
        except LavpsError as error:
            return Failure(input=ready.job.source.path, error=error)
        batch = parse_count("--batch-size", self.request.compute.batch_size, 1)
        held = provide(ready.case.seen, self.weights, ready.tiling, sampling, options, batch)
        if not held.fits:
            self.listener.warn(f"{name_of(ready.job.source.path)} {held.told}: too much.")
        return plan(
            ready.job.source.path,
            ready.case.picture.size,
            ready.case.seen,
            ready.targets,
            held,
            self.weights,
            sampling,
            options,
            expected,
        )
