"""What a command is to do: every picture with its settings and its names, decided beforehand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lavps_cli.pipeline.degradation import implied_task
from lavps_cli.pipeline.inputs import are_several, find_sources, share
from lavps_cli.pipeline.job import Job, Source
from lavps_cli.pipeline.journal import NAME
from lavps_cli.pipeline.manifest import checked, read_manifest
from lavps_cli.pipeline.naming import Named, settled
from lavps_cli.pipeline.paths import STDIO, check_outputs, home_of, with_folder
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Listener, Pipes
from lavps_cli.storage.places import Place, is_url, located


def find_jobs(
    request: Restoration,
    listener: Listener,
    pipes: Pipes,
    *,
    default: str,
    check: Callable[[Restoration], object],
) -> list[Job]:
    """Return the jobs of a command, those alone that `--shard` asks for.

    Args:
        request: What the command line says.
        listener: Told of files that are no pictures.
        pipes: For lists on stdin.
        default: The template without `-o`.
        check: Of the settings of one job; raises `LavpsError`.

    Raises:
        UsageError: Something about them is wrong; nothing may be started.
        DataError: A folder holds no picture.
    """
    part, parts = share(request.select)
    manifest = request.select.manifest
    if manifest is not None:
        jobs = read_manifest(request, pipes)
        checked(jobs, manifest, check)
    else:
        jobs = _named(request, listener, pipes, check)
    jobs = with_masks(jobs)
    named = settled([named_of(job, default) for job in jobs])
    pairs = zip(jobs, named, strict=True)
    # Names do not depend on the share.
    mine = [settled_job(job, each, many=len(jobs) > 1) for job, each in pairs][part::parts]
    return [replace(job, index=i, count=len(mine)) for i, job in enumerate(mine, 1)]


def _named(
    request: Restoration,
    listener: Listener,
    pipes: Pipes,
    check: Callable[[Restoration], object],
) -> list[Job]:
    if not request.inputs and request.select.files_from is None:
        check_outputs((), request.output.output, 1)
    sources = find_sources(request.inputs, request.select, listener, pipes)
    output = with_folder(request.output, several=are_several(sources))
    request = replace(request, output=output)
    if sources:
        check(replace(request, inputs=tuple(source.path for source in sources)))
    return [Job(source=source, request=request) for source in sources]


def with_masks(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs with a mask each, where `--mask` is a folder of them.

    That of the same stem, in the same folder below it where there is one.
    """
    folders: dict[Path, dict[str, Path]] = {}

    def mask_of(given: str, source: Source) -> Path:
        folder = Path(given) / source.tree
        folder = folder if folder.is_dir() else Path(given)
        if folder not in folders:
            files = sorted(folder.iterdir(), reverse=True)
            folders[folder] = {path.stem: path for path in files}
        stem = Path(source.path).stem
        missing = folder / f"{stem}.png"  # Reading it tells that.
        return folders[folder].get(stem, missing)

    result = []
    for job in jobs:
        problem = job.request.problem
        if problem.mask is not None and not is_url(problem.mask) and Path(problem.mask).is_dir():
            problem = replace(problem, mask=str(mask_of(problem.mask, job.source)))
            job = replace(job, request=replace(job.request, problem=problem))
        result.append(job)
    return result


def named_of(job: Job, default: str) -> Named:
    """Return a job with the name of its result, as far as it is known."""
    request = job.request
    task = implied_task(request.problem)
    return Named(job.source, request.output, default, task, request.sampling.seed)


def settled_job(job: Job, named: Named, *, many: bool) -> Job:
    """Return a job with its name and its journal."""
    journal = _journal(job, named.place, many=many)
    return replace(job, source=named.source, place=named.place, journal=journal)


def _journal(job: Job, place: str, *, many: bool) -> Place | None:
    """Return the journal of the folder that `-o` names, else of the result's folder.

    A single picture that goes to a file has none.
    """
    output = job.request.output
    if STDIO in (job.source.path, output.output):
        return None
    if job.request.journal is not None:
        return located(job.request.journal)
    home = home_of(output)
    if home is None and many:
        home = located(place).parent
    return None if home is None else home / NAME
