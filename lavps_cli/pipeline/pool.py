"""Work spread over a Ray cluster: actors that hold a model, given a few tasks at a time.

Plain actors and not Ray Data: a lost worker costs the tasks that it held and nothing else, one task
that kills its workers can be told from its neighbours, and a bounded number is under way whatever
the length of the input. Scheduling, health and growth of the cluster are Ray's.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from lavps_cli import __version__
from lavps_cli.errors import DeviceError, LavpsError, UsageError
from lavps_cli.pipeline.requests import Spread
from lavps_cli.pipeline.results import Listener

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T], R]

MOST_DEATHS = 2
"""Workers that one task may cost."""
_MOST_STARTS = 3
"""Workers that may end before they begin, with none between them that did."""
_HEARTBEATS = 5.0
"""Seconds after which a lost node is known as such where its connections have broken."""
_PATIENCE = 30.0
"""Seconds after which it is said that the cluster has no room."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which cluster, and what is asked of it."""

    address: str | None = None
    """`auto`, `ray://...` or `host:port`; None starts one on this machine."""
    actors: int | None = None
    """Asked for; work begins with the first. None: as many as there is room for now."""
    gpus: float = 0.0
    """Of each; several share a device with fractions."""
    cpus: float = 1.0
    ahead: int = 2
    """Tasks that an actor has: while one is computed the next is read."""


class UnfitError(DeviceError):
    """A worker is of another kind than the others: it is left out."""


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """A task that was done."""

    task: T
    result: R


@dataclass(frozen=True)
class Lost(Generic[T]):
    """A task that killed its workers, the last time while it was alone there."""

    task: T
    reason: str


def cluster_of(spread: Spread, cpus: int | None) -> Cluster:
    """Return what flags ask for."""
    gpus = 0.0 if spread.gpus is None else spread.gpus
    return Cluster(address=spread.address, actors=spread.actors, gpus=gpus, cpus=float(cpus or 1))


def with_gpus(cluster: Cluster, spread: Spread, device: str) -> Cluster:
    """Return the cluster with a GPU for each actor, where there are some and nothing was said."""
    import ray

    wanted = device == "auto" or device.startswith("cuda")
    if spread.gpus is None and wanted and ray.cluster_resources().get("GPU", 0):
        return replace(cluster, gpus=1.0)
    return cluster


def check_engine(spread: Spread) -> None:
    """Check that nothing is asked of a cluster where there is none.

    Raises:
        UsageError: Something is.
    """
    given = {
        "--ray-address": spread.address,
        "--actors": spread.actors,
        "--actor-gpus": spread.gpus,
    }
    for flag, value in given.items() if spread.engine == "local" else ():
        if value is not None:
            raise UsageError(
                f"{flag} is about a Ray cluster.", f"Add:  --engine ray {flag} {value}"
            )


_REACHING = (
    'From elsewhere:  pip install "ray[client]"      Where it wants a token (it lies in '
    "~/.ray/auth_token):  RAY_AUTH_MODE=token"
)


def connect(cluster: Cluster) -> Callable[[], None]:
    """Join a cluster, or start one here; return what leaves it again.

    Raises:
        UsageError: Ray is not installed.
        DeviceError: The cluster cannot be reached.
    """
    if find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray.", 'Install it:  pip install "lavps[ray]"')
    import ray

    _keep_stdout_clean()
    if ray.is_initialized():
        return lambda: None
    here: dict[str, Any] = {} if cluster.address else {"include_dashboard": False}
    try:
        ray.init(cluster.address or "local", log_to_driver=False, logging_level="error", **here)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DeviceError(
            f"the cluster {cluster.address or 'here'} cannot be reached: {lines[0]}",
            _REACHING
            if (cluster.address or "").startswith("ray://")
            else "Is it running?  ray status      Start one:  ray start --head",
        ) from error
    return ray.shutdown


def _keep_stdout_clean() -> None:
    """Have Ray not print about lost workers on stdout, which is for results.

    There is no public switch for these messages, and we tell of the same.
    """
    with suppress(ImportError, AttributeError):
        from ray._private import worker

        worker._worker_logs_enabled = False


def room(cluster: Cluster) -> int:
    """Return how many actors a cluster has room for now, at least one."""
    import ray

    there = ray.cluster_resources()
    counts = [there.get("CPU", 0) / cluster.cpus] if cluster.cpus else []
    counts += [there.get("GPU", 0) / cluster.gpus] if cluster.gpus else []
    return max(1, int(min(counts, default=1.0)))


def pooled(
    tasks: Iterable[T],
    open_work: Callable[[], Work[T, R]],
    cluster: Cluster,
    listener: Listener,
    parts: Callable[[T], Sequence[T]] = lambda task: (task,),
) -> Iterator[Done[T, R] | Lost[T]]:
    """Yield the tasks as they are done, in no order; `connect` comes first.

    A worker or node that is lost is replaced and its tasks are done again. A task that may have
    killed its worker is done again alone; if that one ends, too, the task is lost.

    Args:
        tasks: Taken from when a worker is free.
        open_work: Called once in each worker; what it returns does a task, and must bear being
            called by as many threads as there are tasks ahead.
        cluster: What is asked for.
        listener: Told of losses.
        parts: What a task is made of, each a task: these are done alone where one is suspected.

    Raises:
        LavpsError: What `open_work` raises in a worker.
        DeviceError: Workers end before they begin.
    """
    run: _Run[T, R] = _Run(iter(tasks), open_work, cluster, listener, parts)
    try:
        run.start(cluster.actors or room(cluster))
        yield from run.results()
    finally:
        run.stop()


@dataclass(eq=False)
class _Task(Generic[T]):
    task: T
    deaths: int = 0


@dataclass(eq=False)
class _Member(Generic[T]):
    """An actor, as the driver knows it."""

    handle: Any
    node: str | None = None
    """Where it runs; None before it has begun."""
    held: list[_Task[T]] = field(default_factory=list)
    alone: bool = False
    """Whether what it holds is suspected."""


class _Actor(Generic[T, R]):
    """What runs in a worker."""

    def __init__(self, open_work: Callable[[], Work[T, R]]) -> None:
        self._open = open_work
        self._work: Work[T, R] | None = None

    def begin(self, version: str) -> tuple[Any, LavpsError | None]:
        """Open the work; return the node and what the work says, or what failed."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        if version != __version__:
            text = f"a worker has lavps {__version__}, this one is {version}."
            return None, UsageError(text, "Install one version on all machines.")
        try:
            self._work = self._open()
        except LavpsError as error:
            return None, error
        return (node, getattr(self._work, "about", "")), None

    def do(self, task: T) -> tuple[R | None, LavpsError | None]:
        assert self._work is not None
        try:
            return self._work(task), None
        except LavpsError as error:
            return None, error


class _Run(Generic[T, R]):
    def __init__(
        self,
        tasks: Iterator[T],
        open_work: Callable[[], Work[T, R]],
        cluster: Cluster,
        listener: Listener,
        parts: Callable[[T], Sequence[T]],
    ) -> None:
        import ray

        self.ray, self.tasks, self.cluster, self.listener = ray, tasks, cluster, listener
        self.parts = parts
        self.work = ray.put(open_work)
        self.actor = ray.remote(_Actor).options(
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            max_concurrency=cluster.ahead,
            max_restarts=0,
            max_task_retries=0,
        )
        self.members: list[_Member[T]] = []
        self.flying: dict[Any, tuple[_Member[T], _Task[T] | None]] = {}
        self.again: deque[_Task[T]] = deque()
        self.ended = False
        self.failed_starts = 0
        self.said: set[str] = set()

    def start(self, count: int) -> None:
        for _ in range(count):
            self._add()

    def stop(self) -> None:
        for member in self.members:
            with suppress(Exception):  # The cluster may be gone.
                self.ray.kill(member.handle)
        self.members.clear()

    def results(self) -> Iterator[Done[T, R] | Lost[T]]:
        waits, told = time.monotonic(), False
        while True:
            self._fill()
            if not any(task is not None for _, task in self.flying.values()) and self._is_empty():
                return
            ready, _ = self.ray.wait(list(self.flying), timeout=1.0)
            if any(member.node for member in self.members):
                waits = time.monotonic()
            elif not told and time.monotonic() - waits > _PATIENCE:
                told = True
                self.listener.warn(
                    f"waiting: the cluster has no room for a worker of {self.cluster.cpus:g} CPUs "
                    f"and {self.cluster.gpus:g} GPUs"
                )
            for ref in ready:
                if ref in self.flying:  # Those of a worker that has ended are gone.
                    yield from self._landed(ref)

    def _is_empty(self) -> bool:
        return self.ended and not self.again

    def _add(self) -> None:
        member: _Member[T] = _Member(self.actor.remote(self.work))
        self.members.append(member)
        self.flying[member.handle.begin.remote(__version__)] = (member, None)

    def _fill(self) -> None:
        """Give workers what they have room for: first each one task, then the next ahead."""
        for depth in range(1, self.cluster.ahead + 1):
            for member in self.members:
                if member.node is None or member.alone or len(member.held) >= depth:
                    continue
                if (task := self._next(suspects=not member.held)) is None:
                    continue
                member.alone = task.deaths > 0
                member.held.append(task)
                self.flying[member.handle.do.remote(task.task)] = (member, task)

    def _next(self, *, suspects: bool) -> _Task[T] | None:
        for i, again in enumerate(self.again):
            if suspects or again.deaths == 0:
                del self.again[i]
                return again
        if not self.ended:
            for task in self.tasks:
                return _Task(task)
            self.ended = True
        return None

    def _landed(self, ref: Any) -> Iterator[Done[T, R] | Lost[T]]:
        member, task = self.flying.pop(ref)
        try:
            told, error = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError:
            raise  # A bug, with its own traceback.
        except self.ray.exceptions.RayError as ended:
            yield from self._ended(member, task, ended)
            return
        if isinstance(error, UnfitError) and len(self.members) > 1:
            self.members.remove(member)
            self.ray.kill(member.handle)
            self.listener.warn(error.message)
            return
        if error is not None:
            raise error
        if task is None:
            (member.node, about), self.failed_starts = told, 0
            if about and about not in self.said:
                self.said.add(about)
                self.listener.note(about)
            return
        member.held.remove(task)
        member.alone = False
        yield Done(task.task, told)

    def _ended(
        self, member: _Member[T], task: _Task[T] | None, error: Exception
    ) -> Iterator[Lost[T]]:
        """Put a worker's tasks back, and another in its place."""
        self.members.remove(member)
        self.flying = {r: each for r, each in self.flying.items() if each[0] is not member}
        with suppress(Exception):
            self.ray.kill(member.handle)
        reason = " ".join(str(error).split())[:300]
        # Before a task is given up, it is waited for until a lost node would be known as lost.
        last = member.alone and any(task.deaths + 1 >= MOST_DEATHS for task in member.held)
        of_node = self._is_node_lost(member, reason, _HEARTBEATS if last else 0.0)
        what = "a node was lost" if of_node else "a worker has ended"
        self.listener.warn(f"{what}; {len(member.held)} tasks are done again")
        self.listener.detail(reason)
        if member.node is None and not of_node:
            self.failed_starts += 1
            if self.failed_starts >= _MOST_STARTS:
                raise DeviceError(
                    f"workers end before they begin: {reason}", "The logs:  /tmp/ray/session_latest"
                )
        for held in member.held:
            deaths = held.deaths + (not of_node)
            if member.alone and deaths >= MOST_DEATHS:
                yield Lost(held.task, reason)
            elif of_node:
                self.again.append(held)
            else:
                self.again.extend(_Task(part, deaths) for part in self.parts(held.task))
        self._add()

    def _is_node_lost(self, member: _Member[T], reason: str, patience: float) -> bool:
        if "node has died" in reason:
            return True
        until = time.monotonic() + patience
        while member.node is not None:
            if member.node not in {each["NodeID"] for each in self.ray.nodes() if each["Alive"]}:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.5)
        return False
