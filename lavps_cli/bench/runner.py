"""Which measurements are made, in which order, and when it is enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lavps_cli.bench.records import Book, Config, Record, Split


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration, and what measures it on an image."""

    config: Config
    measure: Callable[[Sequence[int], Split], Sequence[Record]]
    """Takes the places of images in their split; returns a record of each."""


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


def measure_all(
    cells: Sequence[Cell],
    images: Images,
    seed: int,
    book: Book,
    *,
    until: float = float("inf"),
    batch: int = 1,
    on_record: Callable[[Record, int, int], None] = lambda record, done, total: None,
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
    """
    total = len(cells) * len(images.names)
    done = 0
    for first in range(0, len(images.names), batch):
        places = range(first, min(first + batch, len(images.names)))
        for cell in cells:
            digest = cell.config.digest
            missing = [p for p in places if book.get((digest, images.names[p], seed)) is None]
            done += len(places) - len(missing)
            begun = any(book.get((digest, name, seed)) for name in images.names)
            if not missing or (begun and time.monotonic() > until):
                continue
            for record in cell.measure(missing, images.split):
                book.add(record)
                done += 1
                on_record(record, done, total)
    return Left(done, total - done)
