"""Jobs of a manifest of any length: checked in one pass, made in another, never all in memory.

What is kept of a line are two numbers: prints of where its input lies and of where its result goes.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.inputs import share
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.jobs import find_jobs, named_of, settled_job, with_masks
from lavps_cli.pipeline.manifest import each_job
from lavps_cli.pipeline.naming import Named, settled
from lavps_cli.pipeline.paths import STDIO, TEMPLATE
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Listener, Pipes
from lavps_cli.storage.places import Place, located

_AT_ONCE = 1024
Check: TypeAlias = Callable[[Restoration], object]
K = TypeVar("K")


class Prints(Generic[K]):
    """A set that takes eight bytes a member: told by their prints, of 64 bits."""

    def __init__(self, numbers: "array[int]") -> None:
        self._sorted: npt.NDArray[np.uint64] = np.sort(np.array(numbers, np.uint64))

    def __contains__(self, key: object) -> bool:
        return self.holds(print_of(key))

    def __len__(self) -> int:
        return len(self._sorted)

    def holds(self, number: int) -> bool:
        place = int(np.searchsorted(self._sorted, np.uint64(number)))
        return place < len(self._sorted) and int(self._sorted[place]) == number

    def repeated(self) -> set[int]:
        """Return the prints that are there more than once."""
        same = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        return set(same.tolist())


def print_of(key: object) -> int:
    """Return the print of what is told by its text."""
    text = str(key).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    count: int
    jobs: Callable[[], Iterator[Job]]
    inputs: Prints[Any]
    """Where inputs lie, of all jobs."""


def plan_jobs(request: Restoration, listener: Listener, pipes: Pipes, *, check: Check) -> Plan:
    """Return what is to be done, checked.

    Raises:
        LavpsError: As `find_jobs`.
    """
    manifest = request.select.manifest
    if manifest is None or manifest == STDIO:
        jobs = find_jobs(request, listener, pipes, default=TEMPLATE, check=check)
        found = array("Q", (print_of(_place(job)) for job in jobs))
        return Plan(len(jobs), lambda: iter(jobs), Prints(found))
    inputs, outputs = array("Q"), array("Q")
    limit = request.select.limit
    for job in each_job(request, pipes, check):
        if limit is None or len(inputs) < limit:
            inputs.append(print_of(_place(job)))
            named = named_of(job, TEMPLATE)
            if named.is_certain:
                outputs.append(print_of(named.place))

    def every() -> Iterator[Job]:
        return islice(each_job(request, pipes), limit)

    renamed = _renamed(every, Prints(outputs))
    part, parts = share(request.select)
    count = len(range(part, len(inputs), parts))

    def jobs_of_share() -> Iterator[Job]:
        mine, index = islice(every(), part, None, parts), 0
        while some := with_masks(list(islice(mine, _AT_ONCE))):
            for job in some:
                index += 1
                named = renamed.get(job.line) or named_of(job, TEMPLATE)
                settled = settled_job(job, named, many=len(inputs) > 1)
                yield replace(settled, index=index, count=count)

    return Plan(count, jobs_of_share, Prints(inputs))


def _renamed(every: Callable[[], Iterator[Job]], outputs: Prints[str]) -> dict[int, Named]:
    """Return the names, by line, of results that need another one than the usual.

    Raises:
        UsageError: Two would have one name all the same.
    """
    twice = outputs.repeated()
    if not twice:
        return {}
    pairs = ((job.line, named_of(job, TEMPLATE)) for job in every())
    shared = {line: named for line, named in pairs if print_of(named.place) in twice}
    renamed = dict(zip(shared, settled(list(shared.values())), strict=True))
    for line, named in renamed.items():
        if named.place != shared[line].place and outputs.holds(print_of(named.place)):
            raise UsageError(
                f"{named.place} would be the result of line {line} and of another one.",
                "Tell them apart:  -o '{dir}/{stem}_new.{ext}'",
            )
    return renamed


def _place(job: Job) -> Place:
    return located(job.source.path).resolve()
