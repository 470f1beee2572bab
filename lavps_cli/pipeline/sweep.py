"""The grid of a calibration on the validation images: shared beginnings, early ends.

Configurations that differ only in what happens inside script-T take the same first steps with the
same noise, whatever the method: these are computed once. Configurations that are surely dominated
get no more images.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lavps_cli.bench.racing import survivors
from lavps_cli.bench.records import Book, Config, Record, Split
from lavps_cli.pipeline.coarse import reduced
from lavps_cli.pipeline.measuring import Bench
from lavps_cli.pipeline.sampling import Snapshot
from lavps_cli.samplers.lavps import LavpsOptions, early_steps
from lavps_cli.training.families import Family

LATE = ("grad_steps_end", "lr_end", "switch_ratio", "switch_back")
"""Options that have no effect before script-T."""


@dataclass(frozen=True)
class Candidate:
    """One configuration of a method."""

    method: str
    options: LavpsOptions
    config: Config

    @property
    def trunk(self) -> tuple[Any, ...]:
        """What the steps before script-T depend on."""
        values = self.config.options
        return tuple((name, value) for name, value in values.items() if name not in LATE)


@dataclass
class Saved:
    """How much work a sweep was spared, in forward evaluations."""

    done: float = 0.0
    """Evaluations made."""
    shared: float = 0.0
    """Evaluations that another configuration had made already."""
    dropped: float = 0.0
    """Evaluations of images that dominated configurations were spared, by their mean cost."""

    @property
    def factor(self) -> float:
        """How many times more the plain sweep would have cost."""
        return (self.done + self.shared + self.dropped) / self.done if self.done else 1.0


@dataclass(frozen=True)
class Group:
    """Candidates with a common beginning that lack records of some images."""

    candidates: tuple[Candidate, ...]
    """The one with the latest script-T first."""
    family: str
    places: tuple[int, ...]
    split: Split


Measured: TypeAlias = list[tuple[list[Record], float]]
"""Of each candidate its records, and the evaluations that another one had made already."""


def measure_group(bench: Bench, family: Family, group: Group) -> Measured:
    """Return the records of candidates, their common beginning computed once."""
    early = [early_steps(candidate.options) for candidate in group.candidates]
    snapshots: dict[int, Snapshot] = {}
    measured: Measured = []
    for candidate in group.candidates:
        begun = snapshots.get(early_steps(candidate.options))
        keep = set(early) - {0} if not snapshots else set()
        records, kept = bench.measure_part(
            candidate.config, candidate.options, family, group.places, group.split,
            begun=begun, keep=keep if len(early) > 1 else (),
        )  # fmt: skip
        snapshots |= kept
        measured.append((records, begun.nfe + 2 * begun.nbe if begun is not None else 0.0))
    return measured


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep of candidates over the validation images."""

    bench: Bench
    family: Family
    book: Book
    loss: Callable[[Record], float | None]
    """Lower is better."""
    cost: Callable[[Record], float] = lambda record: record.seconds
    share: bool = True
    race: bool = True
    saved: Saved = field(default_factory=Saved)
    split: Split = "validation"
    measure: Callable[[Iterable[Group]], Iterator[tuple[Group, Measured]]] | None = None
    """On several machines; None measures here."""

    def run(
        self,
        candidates: Sequence[Candidate],
        *,
        until: float = float("inf"),
        on_image: Callable[[int, int], None] = lambda done, left: None,
    ) -> tuple[list[Candidate], int]:
        """Measure batch by batch; return the candidates that were not dropped, and the images.

        Every candidate gets two images, late or not.

        Args:
            candidates: Configurations of all methods.
            until: A time of `time.monotonic`.
            on_image: Told how many images are done, and how many candidates are left.
        """
        names = self.bench.pictures.names[self.split]
        alive = list(candidates)
        for first in range(0, len(names), self.bench.batch):
            if first >= 2 and time.monotonic() > until:
                return alive, first
            places = range(first, min(first + self.bench.batch, len(names)))
            groups = _groups(alive, share=self.share and not self._coarse(places))
            todo = [each for group in groups if (each := self._missing(group, places)).candidates]
            for group, measured in (self.measure or self._here)(todo):
                self._keep(group, measured)
            if self.race:
                alive = self._race(alive, places.stop)
            on_image(places.stop, len(alive))
        return alive, len(names)

    def _coarse(self, places: Sequence[int]) -> bool:
        """Return whether a hole is filled in the reduced picture first, by each run for itself."""
        if not self.bench.model().any_scale:
            return False
        return reduced(self.bench.problem(self.family, places, self.split)[1]) is not None

    def _lacks(self, candidate: Candidate, place: int) -> bool:
        image = self.bench.pictures.names[self.split][place]
        return self.book.get((candidate.config.digest, image, self.bench.seed)) is None

    def _missing(self, group: list[Candidate], places: Sequence[int]) -> Group:
        missing = [c for c in group if any(self._lacks(c, place) for place in places)]
        missing.sort(key=lambda c: -early_steps(c.options))
        return Group(tuple(missing), self.family.name, tuple(places), self.split)

    def _here(self, groups: Iterable[Group]) -> Iterator[tuple[Group, Measured]]:
        for group in groups:
            yield group, measure_group(self.bench, self.family, group)

    def _keep(self, group: Group, measured: Measured) -> None:
        for candidate, (records, shared) in zip(group.candidates, measured, strict=True):
            for place, record in zip(group.places, records, strict=True):
                self.saved.shared += shared
                self.saved.done += record.units - shared
                if self._lacks(candidate, place):
                    self.book.add(record)

    def _race(self, alive: list[Candidate], images: int) -> list[Candidate]:
        """Drop what is dominated; methods have fronts of their own."""
        kept: list[Candidate] = []
        for method in dict.fromkeys(c.method for c in alive):
            mine = {c.config.digest: c for c in alive if c.method == method}
            records = {key: self._records(c, images) for key, c in mine.items()}
            whole = {k: rs for k, rs in records.items() if len(rs) == images}
            losses = {k: [self.loss(r) for r in rs] for k, rs in whole.items()}
            complete = {
                k: [v for v in each if v is not None]
                for k, each in losses.items()
                if None not in each
            }
            seconds = {k: statistics.median(self.cost(r) for r in whole[k]) for k in complete}
            names = set(survivors(complete, seconds)) | (mine.keys() - complete.keys())
            left = len(self.bench.pictures.names[self.split]) - images
            for key in mine.keys() - names:
                self.saved.dropped += left * statistics.mean(r.units for r in records[key])
            kept += [c for key, c in mine.items() if key in names]
        return kept

    def _records(self, candidate: Candidate, images: int) -> list[Record]:
        digest, seed = candidate.config.digest, self.bench.seed
        names = self.bench.pictures.names[self.split][:images]
        found = [self.book.get((digest, name, seed)) for name in names]
        return [r for r in found if r is not None and r.error is None]


def _groups(candidates: Sequence[Candidate], *, share: bool) -> list[list[Candidate]]:
    if not share:
        return [[candidate] for candidate in candidates]
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.trunk, []).append(candidate)
    return list(groups.values())
