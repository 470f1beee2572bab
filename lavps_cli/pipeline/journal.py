"""What is done already: one line of JSON for each finished picture, appended and never changed."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from lavps_cli.errors import OutputError
from lavps_cli.storage.appended import Appended
from lavps_cli.storage.parts import Parts
from lavps_cli.storage.places import Place, is_url, located
from lavps_cli.storage.remote import Remote

FOLDER = ".lavps"
NAME = PurePath(FOLDER, "journal.jsonl")


@dataclass(frozen=True)
class Stamp:
    """By what a file is recognised: at once by size and time, for certain by its content."""

    size: int
    time: int
    """Of its last change, in nanoseconds; of an object its version, 0 before it has one."""
    sha256: str

    @classmethod
    def of_content(cls, content: bytes, time: int) -> "Stamp":
        """Return the stamp of a file that has been read; `time` was taken before."""
        return cls(len(content), time, hashlib.sha256(content).hexdigest())

    @property
    def told(self) -> dict[str, Any]:
        return {"size": self.size, "mtime_ns": self.time, "sha256": self.sha256}


def stamp_of(path: Path | bytes) -> Stamp:
    """Return the stamp of a file, or of what an object will hold.

    Raises:
        OSError: It cannot be read.
    """
    if isinstance(path, bytes):
        return Stamp.of_content(path, 0)
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        return Stamp(
            about.st_size, about.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
        )


def is_untouched(path: Place, stamp: Stamp) -> bool:
    """Return whether a file looks as it did, without reading it."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return False
    return (about.st_size, about.st_mtime_ns) == (stamp.size, stamp.time)


def matches(path: Place, stamp: Stamp) -> bool:
    """Return whether a file is there and has that content; it is read only if it was touched.

    An object that had no version when it was noted is known by its size: reading all results of a
    store again would take as long as making them.
    """
    if is_untouched(path, stamp):
        return True
    try:
        same = path.stat().st_size == stamp.size
        if isinstance(path, Remote):
            return same and stamp.time == 0
        return same and stamp_of(path).sha256 == stamp.sha256
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Entry:
    """One picture that is done, or could not be."""

    place: str
    """Which result it is: its name as it was known beforehand."""
    input: str
    settings: str
    """Digest of all that decides the result beside the input."""
    stamp: Stamp | None = None
    """Of the input."""
    files: tuple[tuple[Place, Stamp], ...] = ()
    """What was written, the uncertainty and comparison first."""
    task: str = ""
    error: str = ""
    begun: bool = False
    """Whether it is to be done again, whatever is there of it."""

    @property
    def is_done(self) -> bool:
        """Whether all its files are there as they were written."""
        return (
            not self.begun
            and bool(self.files)
            and all(matches(path, stamp) for path, stamp in self.files)
        )

    @property
    def owned(self) -> frozenset[Place]:
        """Those files that are there as they were written."""
        return frozenset(path.resolve() for path, stamp in self.files if matches(path, stamp))


@dataclass(eq=False)
class Journal:
    """The journal of one folder; in a store, `Parts`.

    Names below the folder are kept relative to it, so that it can be moved; others are absolute.
    """

    path: Place
    _done: dict[tuple[str, str], Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = located(_absolute(self.path))
        try:
            for line in self._kept.read():
                entry = self._entry(line)
                if entry is not None and not entry.error:
                    self._done[self._told_path(entry.place), entry.settings] = entry
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unusable(self.path, error) from error

    @cached_property
    def _kept(self) -> Parts | Appended:
        return Parts(self.path) if isinstance(self.path, Remote) else Appended(self.path)

    @property
    def folder(self) -> Place:
        """The folder that it is about."""
        parent = self.path.parent
        return parent.parent if parent.name == FOLDER else parent

    def known(self, place: str, settings: str) -> Entry | None:
        """Return what was written there with these settings, of whatever input."""
        return self._done.get((self._told_path(place), settings))

    def add(self, entry: Entry) -> None:
        """Append a line, and return when it is on the disk.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            self._kept.add(json.dumps(self._told(entry)).encode())
        except OSError as error:
            raise _unusable(self.path, error) from error

    def _told(self, entry: Entry) -> dict[str, Any]:
        head: dict[str, Any] = {
            "schema": 1,
            "status": "error" if entry.error else "ok",
            "input": _absolute(entry.input),
            "output": self._told_path(entry.place),
            "settings": entry.settings,
        }
        if entry.stamp is not None:
            head |= entry.stamp.told
        head |= {name: text for name in ("task", "error") if (text := getattr(entry, name))}
        files = [{"name": self._told_path(path)} | stamp.told for path, stamp in entry.files]
        return head | {"files": files}

    def _told_path(self, path: str | Place) -> str:
        whole, folder = located(_absolute(path)), self.folder
        if isinstance(whole, Path) and isinstance(folder, Path):
            return str(whole.relative_to(folder) if folder in whole.parents else whole)
        if isinstance(whole, Remote) and isinstance(folder, Remote) and folder in whole.parents:
            return str(whole.relative_to(folder))
        return str(whole)

    def _place(self, told: str) -> Place:
        if is_url(told) or told.startswith("/"):
            return located(told)
        return self.folder / told

    def _entry(self, line: bytes) -> Entry | None:
        """Return the entry of a line, None where it is damaged: then the picture is done again."""
        try:
            values = json.loads(line)
            files = [(self._place(str(f["name"])), _stamp(f)) for f in values.get("files", ())]
            return Entry(
                place=str(self._place(str(values["output"]))),
                input=str(values["input"]),
                settings=str(values["settings"]),
                stamp=_stamp(values) if "sha256" in values else None,
                files=tuple(files),
                task=str(values.get("task", "")),
                error="" if values["status"] == "ok" else str(values.get("error", "unknown")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


@dataclass(frozen=True)
class Journals:
    """All journals of a command, each read once, when it is asked for."""

    opened: Callable[[Place], Journal] = Journal
    """How one is opened."""
    _open: dict[Place, Journal] = field(default_factory=dict)

    def at(self, path: Place | None) -> Journal | None:
        """Return the journal of that name, None where there is none to be.

        Raises:
            OutputError: It cannot be read.
        """
        if path is None:
            return None
        if path not in self._open:
            self._open[path] = self.opened(path)
        return self._open[path]


def stamps(parts: Mapping[Place, Path | bytes]) -> tuple[tuple[Place, Stamp], ...]:
    """Return the stamps of files that still have other names."""
    return tuple((path, stamp_of(part)) for path, part in parts.items())


def _absolute(path: str | Place) -> str:
    if isinstance(path, Remote) or is_url(str(path)):
        return str(path)
    return os.path.abspath(path)  # noqa: PTH100  # Links stay what they are called.


def _unusable(path: Place, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"the journal {path} cannot be used: {reason}.", "Choose:  --journal FILE")


def _stamp(values: dict[str, Any]) -> Stamp:
    size, time, digest = values["size"], values["mtime_ns"], values["sha256"]
    if not isinstance(size, int) or not isinstance(time, int) or not isinstance(digest, str):
        raise TypeError("no stamp")
    return Stamp(size, time, digest)
