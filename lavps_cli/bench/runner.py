"""Which measurements are made, in which order, and when it is enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lavps_cli.bench.records import Book, Config, Record, Split


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration, and what measures it on an image."""

    config: Config
    measure: Callable[[int, Split], Record]
    """Takes the place of an image in its split."""


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
    on_record: Callable[[Record, int, int], None] = lambda record, done, total: None,
) -> Left:
    """Measure every cell on every image that has no record yet: image by image, cells in turn.

    So a slow minute of the machine meets all methods alike. Every cell gets one image, late or not;
    later images stop at `until`.

    Args:
        cells: What is compared.
        images: On what.
        seed: Of the noise; part of the key of a record.
        book: Where records are found and added.
        until: A time of `time.monotonic`.
        on_record: Told each new record, how many there are, and how many there will be.
    """
    total = len(cells) * len(images.names)
    done = 0
    for place, image in enumerate(images.names):
        for cell in cells:
            key = (cell.config.digest, image, seed)
            if book.get(key) is None:
                begun = any(book.get((cell.config.digest, n, seed)) for n in images.names)
                if begun and time.monotonic() > until:
                    continue
                record = cell.measure(place, images.split)
                book.add(record)
                on_record(record, done + 1, total)
            done += 1
    return Left(done, total - done)
