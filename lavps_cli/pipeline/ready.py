"""Pictures that are read, and which of them are sampled as one batch."""

import math
from dataclasses import dataclass

from lavps_cli.pipeline.case import Case
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.journal import Journal, Stamp
from lavps_cli.pipeline.model import Tiling
from lavps_cli.pipeline.paths import Targets
from lavps_cli.pipeline.results import Outcome
from lavps_cli.pipeline.together import fit_together


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
