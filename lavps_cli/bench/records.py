"""One JSON line per restored image: appended, never rewritten, read back strictly."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias

from lavps_cli.errors import DataError, OutputError
from lavps_cli.storage.parts import Parts
from lavps_cli.storage.places import Place
from lavps_cli.storage.remote import Remote

SCHEMA = 1

Split: TypeAlias = Literal["validation", "test"]
Key: TypeAlias = tuple[str, str, int]
"""Configuration, image, seed: what a measurement is of."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides a restored image, but for the image and the seed."""

    method: str
    options: dict[str, Any]
    model: str
    """Name and first digits of the digest."""
    inference: str | None
    task: str
    """A family of operators, as `lavps train --operators` writes it."""
    sigma_y: float
    size: int
    """Side of the images in pixels."""
    device: str
    dtype: str
    threads: int
    """Of the CPU. Results differ between devices in their last digits, times throughout."""
    coverage: int = 0
    """Further samples that the intervals of pixels are taken from."""
    batch: int = 1
    """Images that were restored at once, each taking its share of the time."""

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Record(Config):
    """One restored image, or the reason why there is none."""

    config: str
    """The digest of its configuration."""
    split: Split
    image: str
    """Name, and the first digits of the digest of the pixels."""
    seed: int
    seconds: float = 0.0
    """Of the sampler alone, the device at rest before and after."""
    nfe: int = 0
    nbe: int = 0
    offered: int = 0
    accepted: int = 0
    """Steps at which the safeguard was offered a predicted start, and at which it kept it."""
    peak_mb: float | None = None
    """Most memory: of the device where it tells, else of the process."""
    residual: float | None = None
    """Root mean square of A(x) - y, in units of sigma_y."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a metric has no value."""
    error: str | None = None
    lavps: str = ""
    torch: str = ""
    schema: int = SCHEMA

    @property
    def key(self) -> Key:
        return self.config, self.image, self.seed

    @property
    def units(self) -> int:
        """Cost in forward evaluations; a backward one counts two."""
        return self.nfe + 2 * self.nbe


def described(config: Config) -> dict[str, Any]:
    """Return the fields of a record that say how it was made."""
    return {"config": config.digest} | asdict(config)


def read(paths: Iterable[Place]) -> list[Record]:
    """Return the records of files; of two measurements of one thing the first counts.

    A last line that a kill has cut is passed over.

    Raises:
        DataError: A file holds something else, or records of a newer version.
    """
    records: dict[Key, Record] = {}
    for path in paths:
        for record in _read_one(path):
            records.setdefault(record.key, record)
    return list(records.values())


def _read_one(path: Place) -> list[Record]:
    known = {each.name for each in fields(Record)}
    try:
        if not path.exists():
            return []
        if isinstance(path, Remote):
            lines = [*Parts(path).read(), b""]
        else:
            lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Check its permissions.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict) or values.get("schema", 0) > SCHEMA:
                raise ValueError("it is of another version of lavps")
            record = Record(**{key: values[key] for key in values if key in known})
            if record.config != _config_of(record).digest:
                raise ValueError("its settings were changed")
        except (ValueError, TypeError) as error:
            if number == len(lines):  # No newline follows: cut by a kill, and done again.
                continue
            reason = "it is no JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(
                f"{path}, line {number}: this is no record of lavps: {reason}.",
                "Choose another folder:  -o DIR      or move the file away",
            ) from error
        found.append(record)
    return found


def _config_of(record: Record) -> Config:
    return Config(**{each.name: getattr(record, each.name) for each in fields(Config)})


class Book:
    """The records of one run, in memory and in a file that grows, or in parts in a store.

    Raises:
        DataError: The file holds something else.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self.records = {record.key: record for record in read([path])}
        self._end_line()

    def _end_line(self) -> None:
        """Cut off what a kill has left of a last line."""
        if isinstance(self.path, Remote) or not self.path.exists():
            return
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            keep = content.rfind(b"\n") + 1
            with self.path.open("r+b") as file:
                file.truncate(keep)

    @cached_property
    def _parts(self) -> Parts:
        assert isinstance(self.path, Remote)
        return Parts(self.path)

    def get(self, key: Key) -> Record | None:
        return self.records.get(key)

    def add(self, record: Record) -> None:
        """Append one record.

        Raises:
            OutputError: The file cannot be written.
        """
        line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
        try:
            if isinstance(self.path, Remote):
                self._parts.add(line.encode())
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(line.encode())
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}.",
                "What was written before is whole: make room, and give the same command.",
            ) from error
        self.records[record.key] = record

    def of(self, config: str, split: Split | None = None) -> list[Record]:
        """Return the records of one configuration that have a result."""
        return [
            record
            for record in self.records.values()
            if record.config == config and split in (None, record.split) and record.error is None
        ]


def values(records: Sequence[Record], metric: str) -> dict[tuple[str, int], float]:
    """Return the values of a metric by image and seed, where it has one."""
    return {
        (record.image, record.seed): value
        for record in records
        if (value := record.metrics.get(metric)) is not None
    }
