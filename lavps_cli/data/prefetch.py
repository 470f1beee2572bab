"""Batches made ahead, by one thread beside the one that trains."""

import time
from collections.abc import Callable, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_DONE = object()


class Prefetch(Generic[T]):
    """Results of `make` for each of `steps`, in their order, up to `depth` of them made ahead.

    What `make` raises is raised by the call that would have returned its result.
    """

    def __init__(self, make: Callable[[int], T], steps: Iterable[int], depth: int = 2) -> None:
        self.waited = 0.0
        """Seconds for which results were waited for."""
        self._ready: Queue[tuple[T | None, object]] = Queue(depth)
        self._closed = Event()
        self._thread = Thread(target=self._work, args=(make, steps), daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetch[T]":
        return self

    def __next__(self) -> T:
        started = time.perf_counter()
        result, what = self._ready.get()
        self.waited += time.perf_counter() - started
        if what is _DONE:
            self._ready.put((None, _DONE))
            raise StopIteration
        if isinstance(what, BaseException):
            self._ready.put((None, _DONE))
            raise what
        return result  # type: ignore[return-value]  # there is one, unless something was raised

    def close(self) -> None:
        """Stop the thread; what it has made is dropped."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.01)
            except Empty:
                continue
        self._ready = Queue()
        self._ready.put((None, _DONE))

    def _work(self, make: Callable[[int], T], steps: Iterable[int]) -> None:
        try:
            for step in steps:
                if self._closed.is_set():
                    return
                self._offer(make(step), None)
            self._offer(None, _DONE)
        except BaseException as error:
            self._offer(None, error)

    def _offer(self, result: T | None, what: object) -> None:
        while not self._closed.is_set():
            try:
                self._ready.put((result, what), timeout=0.1)
                return
            except Full:
                continue
