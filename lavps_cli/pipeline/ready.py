"""Pictures that are read, and which of them are sampled as one batch."""

import math
from dataclasses import dataclass

from lavps_cli.images.opening import content_of
from lavps_cli.pipeline.case import Case
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.journal import Journal, Stamp
from lavps_cli.pipeline.model import Tiling
from lavps_cli.pipeline.paths import STDIO, Targets, name_of
from lavps_cli.pipeline.results import Outcome, Pipes
from lavps_cli.pipeline.together import fit_together
from lavps_cli.storage.places import located


@dataclass(frozen=True, eq=False)
class Early:
    """A picture that is read before its turn, because the method depends on it."""

    content: bytes
    stamp: Stamp | None
    case: Case


@dataclass(eq=False)
class Noted:
    """What the journal is told about one picture; grows while it is read."""

    journal: Journal | None = None
    settings: str = ""
    stamp: Stamp | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Ready:
    """One picture that is read, and where its results go."""

    job: Job
    case: Case
    targets: Targets
    tiling: Tiling
    record: Noted


def read_content(source: str, pipes: Pipes) -> tuple[bytes, Stamp | None]:
    """Return the content of an input, and by what it is recognised if it is a file.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    if source == STDIO:
        return pipes.read(), None
    path = located(source)
    try:
        time = path.stat().st_mtime_ns
    except (OSError, ValueError):
        time = 0  # Reading it tells why.
    content = content_of(path, name_of(source))
    return content, Stamp.of_content(content, time)


def pixels_of(ready: Ready | list[Outcome]) -> int:
    """Return the pixels of a picture's scene, 0 where there is nothing to restore."""
    if isinstance(ready, list):
        return 0
    return math.prod(ready.case.seen.shape)


def fit(a: Ready | list[Outcome], b: Ready | list[Outcome]) -> bool:
    """Return whether two pictures can be sampled as one batch."""
    if isinstance(a, list) or isinstance(b, list):
        return False
    same = (a.job.request.sampling, a.tiling) == (b.job.request.sampling, b.tiling)
    return same and fit_together(a.case.seen, b.case.seen)
