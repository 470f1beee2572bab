"""Which measurements are made, in which order, and when it is enough."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lavps_cli.bench.records import Book, Config, Record, Split


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration, and what measures it on an image."""

    config: Config
    measure: Callable[[Sequence[int], Split], Sequence[Record]]
    """Takes the places of images in their split; returns a record of each."""
    name: str = ""
    """Whose it is."""
    options: Any = None
    """Of the sampler."""


@dataclass(frozen=True)
class Images:
    """The images of one split, as records name them."""

    split: Split
    names: Sequence[str]


@dataclass(frozen=True)
class Left:
    """What did not fit into the time."""

    measured: int
    missing: int

    @property
    def complete(self) -> bool:
        return self.missing == 0


Todo: TypeAlias = tuple[Cell, Sequence[int]]
Measure: TypeAlias = Callable[[Iterable[Todo], Split], Iterator[Sequence[Record]]]
"""Yields the records of what is to do; takes the next only when it is to be begun."""


def in_turn(todo: Iterable[Todo], split: Split) -> Iterator[Sequence[Record]]:
    """Measure one after the other, here."""
    for cell, places in todo:
        yield cell.measure(places, split)


def measure_all(
    cells: Sequence[Cell],
    images: Images,
    seed: int,
    book: Book,
    *,
    until: float = float("inf"),
    batch: int = 1,
    on_record: Callable[[Record, int, int], None] = lambda record, done, total: None,
    measure: Measure = in_turn,
) -> Left:
    """Measure every cell on every image that has no record yet: image by image, cells in turn.

    So a slow minute of the machine meets all methods alike. Every cell gets one image, or batch of
    them, late or not; later images stop at `until`.

    Args:
        cells: What is compared.
        images: On what.
        seed: Of the noise; part of the key of a record.
        book: Where records are found and added.
        until: A time of `time.monotonic`.
        batch: Images that are measured together.
        on_record: Told each new record, how many there are, and how many there will be.
        measure: Here in turn, or on several machines.
    """
    total = len(cells) * len(images.names)
    digests = [cell.config.digest for cell in cells]
    done = sum((d, name, seed) in book.records for d in digests for name in images.names)

    def todo() -> Iterator[Todo]:
        for first in range(0, len(images.names), batch):
            places = range(first, min(first + batch, len(images.names)))
            for cell, digest in zip(cells, digests, strict=True):
                missing = [p for p in places if book.get((digest, images.names[p], seed)) is None]
                begun = any(book.get((digest, name, seed)) for name in images.names)
                if missing and not (begun and time.monotonic() > until):
                    yield cell, missing

    for records in measure(todo(), images.split):
        for record in records:
            book.add(record)
            done += 1
            on_record(record, done, total)
    return Left(done, total - done)
