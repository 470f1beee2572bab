"""One piece of work, decided before anything is begun; it may travel to another process."""

from dataclasses import dataclass

from lavps_cli.pipeline.requests import Restoration
from lavps_cli.storage.places import Place


@dataclass(frozen=True)
class Source:
    """One input, and where it was found."""

    path: str
    """Or `-`."""
    tree: str = ""
    """Its folder below the one that was given: the tree that `-o DIR` keeps."""
    root: Place | None = None
    """The folder that was given."""
    stem: str | None = None
    """What `{stem}` stands for, where another input has the same stem."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture, all that is asked about it, and where it is kept that it is done."""

    source: Source
    request: Restoration
    line: int = 0
    """Of the manifest, 0 without one."""
    index: int = 1
    """Among the jobs of the command, from 1."""
    count: int = 1
    """How many these are."""
    place: str = ""
    """The result's name as far as it is known before the picture is opened; "" for stdout."""
    journal: Place | None = None
    """None where nothing is kept."""
