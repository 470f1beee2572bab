"""Pictures restored by the workers of a Ray cluster; jobs and their code are those of one machine.

Paths are those of the workers: of a file system that all share, or URLs. The journal belongs to a
keeper beside the driver, which workers ask and tell: it has one writer.
"""

import time
from collections import OrderedDict
from collections.abc import Container, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any

from lavps_cli.errors import DeviceError, LavpsError, OutputError, UsageError
from lavps_cli.options import parse_count
from lavps_cli.pipeline.calibration import Costs
from lavps_cli.pipeline.introduction import introduce
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.journal import Entry, Journal, Journals
from lavps_cli.pipeline.model import open_weights, use_threads
from lavps_cli.pipeline.overlap import WINDOW, InWork, batches
from lavps_cli.pipeline.paths import STDIO
from lavps_cli.pipeline.pool import Cluster, Done, Lost, cluster_of, connect, pooled, with_gpus
from lavps_cli.pipeline.ready import fit, pixels_of
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import FILES_ONLY, Failure, Listener, Outcome, Pipes, Progress, Said
from lavps_cli.pipeline.runner import Run
from lavps_cli.pipeline.streaming import Check, Plan, Prints, plan_jobs
from lavps_cli.storage.places import Place

Task = tuple[Job, ...]

_TOGETHER = 16
"""Jobs of a task where there are GPUs, which sample pictures of one kind as a batch."""
_RECENT = 1 << 16
"""Entries that the keeper knows to be of this run: far more than are under way."""


@dataclass(frozen=True)
class Answer:
    """What a worker tells of a task."""

    outcomes: list[Outcome]
    said: list[tuple[str, str]]
    """Kinds and texts of messages to the listener."""


def on_cluster(
    request: Restoration, listener: Listener, pipes: Pipes, *, check: Check
) -> Generator[Outcome]:
    """Restore pictures on a cluster, and yield the outcomes as they come, in no order.

    Raises:
        LavpsError: Nothing can be done at all: flags, cluster, weights.
    """
    if request.gpus is not None:
        raise UsageError("--gpus is for one machine.", "On a cluster:  --actors N --actor-gpus 1")
    plan = plan_jobs(request, listener, pipes, check=check)
    if STDIO in (request.output.output, *request.inputs):
        raise UsageError("--engine ray reads and writes files.", "Leave it out for - .")
    if not plan.count:
        listener.note("no pictures to restore")
        return
    cluster = cluster_of(request.spread, parse_count("--threads", request.compute.threads, 1))
    leave = connect(cluster)
    try:
        yield from _outcomes(
            request, plan, with_gpus(cluster, request.spread, request.compute.device), listener
        )
    finally:
        leave()


def _outcomes(
    request: Restoration, plan: Plan, cluster: Cluster, listener: Listener
) -> Iterator[Outcome]:
    keeper = _keeper()
    given = parse_count("--batch-size", request.compute.batch_size, 1)
    size = given or (_TOGETHER if cluster.gpus else 1)
    open_work = partial(Worker, request, keeper, plan.inputs)
    started, done = time.monotonic(), 0
    for each in pooled(_tasks(plan.jobs(), size), open_work, cluster, listener, _apart):
        yield from _told(each, keeper, listener)
        done += len(each.task)
        left = (time.monotonic() - started) * (plan.count - done) / done
        listener.progress(
            Progress(
                input="pictures", index=1, count=1, done=done, total=plan.count, seconds_left=left
            )
        )


def _tasks(jobs: Iterator[Job], size: int) -> Iterator[Task]:
    while task := tuple(islice(jobs, size)):
        yield task


def _apart(task: Task) -> list[Task]:
    return [(job,) for job in task]


def _told(
    each: Done[Task, Answer] | Lost[Task], keeper: Any, listener: Listener
) -> Iterator[Outcome]:
    if isinstance(each, Done):
        for kind, text in each.result.said:
            getattr(listener, kind)(text)
        yield from each.result.outcomes
        return
    journals = Journals(partial(KeptJournal, keeper=keeper))
    for job in each.task:
        source = job.source.path
        error = DeviceError(
            f"{source} ended two workers and is left out: {each.reason}",
            "Is it too large for them?  --tile 256   --max-pixels N",
        )
        journal = journals.at(job.journal)
        if journal is not None and not job.request.dry_run:
            journal.add(Entry(place=job.place, input=source, settings="", error=error.message))
        yield Failure(input=source, error=error, journal=str(job.journal or ""))


class Worker:
    """What restores in a worker: `Run`, as on one machine, by as many threads as tasks are ahead.

    One reads and writes while another samples.
    """

    def __init__(self, request: Restoration, keeper: Any, inputs: Prints[Place]) -> None:
        use_threads(request.compute.threads)
        self.request, self.inputs = request, inputs
        self.weights = open_weights(request.compute, request.sampling.method)
        self.journals = Journals(partial(KeptJournal, keeper=keeper))
        self.options: dict[tuple[str, tuple[str, ...]], Any] = {}
        self.costs: dict[tuple[str, int], Costs] = {}
        self.sampling = Lock()
        self._run((), Said()).options_of(request)  # What is wrong with all is told once.
        said = Said()
        introduce(request, self.weights, said)
        self.about = "; ".join(text for _, text in said.messages)

    def __call__(self, task: Task) -> Answer:
        said, work = Said(), InWork()
        run = self._run(task, said)
        calls = (partial(run.read, job, work) for job in task)
        outcomes: list[Outcome] = []
        for group in batches(calls, fits=fit, room=run.room, weight=pixels_of, window=WINDOW):
            with self.sampling:
                write = run.restore(group)
            outcomes += write()
        return Answer(outcomes, said.messages)

    def _run(self, task: Task, said: Said) -> Run:
        return _Run(
            self.request, task, said, FILES_ONLY, self.weights,
            self.journals, costs=self.costs, options=self.options, of_all=self.inputs,
        )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class _Run(Run):
    of_all: Container[Place]

    @property
    def inputs(self) -> Container[Place]:
        return self.of_all


class _Keeper:
    """The journals of a run, in an actor beside the driver."""

    def __init__(self) -> None:
        self._journals: dict[Place, Journal] = {}
        self._recent: OrderedDict[tuple[Place, str, str], Entry] = OrderedDict()
        self._lock = Lock()

    def _of(self, path: Place) -> Journal:
        with self._lock:
            if path not in self._journals:
                self._journals[path] = Journal(path)
            return self._journals[path]

    def opens(self, path: Place) -> LavpsError | None:
        """Read a journal; return what is wrong with it."""
        try:
            self._of(path)
        except OutputError as error:
            return error
        return None

    def known(self, path: Place, place: str, settings: str) -> Entry | None:
        """Return what is known of a result.

        What was noted in this run is asked for where a worker was lost after it had: its files are
        ours, but the picture is done again.
        """
        mine = self._recent.get((path, place, settings))
        if mine is not None:
            return replace(mine, begun=True)
        return self._of(path).known(place, settings)

    def add(self, path: Place, entry: Entry) -> LavpsError | None:
        """Add an entry, once, and return when it is kept, or what is wrong."""
        key = (path, entry.place, entry.settings)
        with self._lock:
            before = self._recent.get(key)
            self._recent[key] = entry
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        if before is not None and _content(before) == _content(entry):
            return None
        try:
            self._of(path).add(entry)
        except OutputError as error:
            return error
        return None


def _content(entry: Entry) -> tuple[Any, ...]:
    return entry.error, tuple((str(path), s.size, s.sha256) for path, s in entry.files)


def _keeper() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 64, "scheduling_strategy": here}
    return ray.remote(_Keeper).options(**options).remote()


class KeptJournal(Journal):
    """A journal as workers see it: the keeper has it."""

    def __init__(self, path: Place, keeper: Any) -> None:
        self.path, self._keeper = path, keeper
        self._asked(keeper.opens.remote(path))

    def known(self, place: str, settings: str) -> Entry | None:
        entry: Entry | None = _get(self._keeper.known.remote(self.path, place, settings))
        return entry

    def add(self, entry: Entry) -> None:
        self._asked(self._keeper.add.remote(self.path, entry))

    def _asked(self, ref: Any) -> None:
        error = _get(ref)
        if error is not None:
            raise error


def _get(ref: Any) -> Any:
    import ray

    return ray.get(ref)
