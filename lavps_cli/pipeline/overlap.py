"""Reading, restoring and writing at the same time: a thread before the networks and one after."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count
from queue import Queue
from typing import Generic, TypeVar

from lavps_cli.data.prefetch import Prefetch

T = TypeVar("T")
R = TypeVar("R")

WINDOW = 1 << 23
"""Pixels of pictures that wait for others of their kind, at most."""
LARGE = 4_000_000
"""Pixels from which a picture is alone in memory."""
_BEHIND = 2


class Closed(Exception):
    """Nobody waits for the result any more."""


class InWork:
    """How many batches are read and not yet written; large pictures wait until there are none."""

    def __init__(self) -> None:
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()

    def begin(self) -> None:
        with self._changed:
            self._count += 1

    def end(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when all is written.

        Raises:
            Closed: It will not be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0 or self._closed)
            if self._closed:
                raise Closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def batches(
    items: Iterable[Callable[[], T]],
    *,
    fits: Callable[[T, T], bool],
    room: Callable[[T], int],
    weight: Callable[[T], int],
    window: int,
) -> Iterator[list[T]]:
    """Yield what the calls return in groups that fit together.

    Which groups there are follows from the items alone, not from how fast anything is.

    Args:
        items: Calls, made in their order.
        fits: Whether two may be in one group.
        room: The largest group that an item may be in; 1: none with others.
        weight: What an item takes.
        window: How much is held at most until groups are full.
    """
    groups: deque[list[T]] = deque()
    for call in items:
        item = call()
        if room(item) <= 1:
            # In the order of the items, as far as there is any.
            yield from groups
            groups.clear()
            yield [item]
            continue
        group = next((each for each in groups if fits(each[0], item)), None)
        if group is None:
            group = []
            groups.append(group)
        group.append(item)
        if len(group) >= room(item):
            groups.remove(group)
            yield group
        elif sum(weight(each) for one in groups for each in one) >= window:
            yield groups.popleft()
    yield from groups


class Behind(Generic[R]):
    """Calls made by a thread in their order; their results are taken when there are some."""

    def __init__(self) -> None:
        self._calls: Queue[Callable[[], R] | None] = Queue(_BEHIND)
        self._results: deque[R | BaseException] = deque()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, call: Callable[[], R]) -> None:
        """Have a call made; waits while there are too many."""
        self._calls.put(call)

    def wait(self) -> None:
        """Return when all calls so far are made."""
        self._calls.join()

    def results(self) -> Iterator[R]:
        """Yield what has been returned since, and raise what was raised."""
        while self._results:
            result = self._results.popleft()
            if isinstance(result, BaseException):
                raise result
            yield result

    def close(self) -> None:
        """Return when all calls are made: what is computed is written, also after Ctrl-C."""
        self._calls.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._results.append(call())
            except BaseException as error:
                self._results.append(error)
            finally:
                self._calls.task_done()


def overlapped(
    groups: Iterator[list[T]],
    restore: Callable[[list[T]], Callable[[], R]],
    work: InWork,
    is_large: Callable[[T], bool],
    *,
    in_turn: bool = False,
) -> Generator[R]:
    """Yield the results of groups: made by one thread, restored here, finished by another.

    Args:
        groups: Their making is what reads ahead.
        restore: Does the work and returns the call that finishes it.
        work: Of those who make groups, to wait for.
        is_large: Whether nothing is read while this one is in work.
        in_turn: Whether each group is finished before work on the next begins.
    """

    def made() -> Iterator[list[T]]:
        for group in groups:
            work.begin()
            yield group
            if any(map(is_large, group)):
                work.wait()

    source = made()
    reading = Prefetch(lambda _: next(source), count(), depth=1)
    writing: Behind[R] = Behind()

    def finish(call: Callable[[], R]) -> R:
        try:
            return call()
        finally:
            work.end()

    try:
        for group in reading:
            call = restore(group)
            writing.add(lambda call=call: finish(call))  # type: ignore[misc]
            del group, call  # Pictures are large, and the next is waited for.
            if in_turn:
                writing.wait()
            yield from writing.results()
    finally:
        work.close()
        reading.close()
        writing.close()
    yield from writing.results()
