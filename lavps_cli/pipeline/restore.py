"""`lavps restore`: damaged pictures in, samples of their posterior out."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from lavps_cli.errors import UsageError
from lavps_cli.options import parse_count, parse_pixels, parse_seconds
from lavps_cli.pipeline.auto import AUTO, check_auto, chosen_method
from lavps_cli.pipeline.case import read_case
from lavps_cli.pipeline.clustered import on_cluster
from lavps_cli.pipeline.damage import required_task
from lavps_cli.pipeline.degradation import check_problem
from lavps_cli.pipeline.devices import on_devices
from lavps_cli.pipeline.introduction import introduce
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.jobs import find_jobs
from lavps_cli.pipeline.manifest import checked
from lavps_cli.pipeline.model import open_weights, use_threads
from lavps_cli.pipeline.overlap import LARGE, WINDOW, InWork, batches, overlapped
from lavps_cli.pipeline.paths import TEMPLATE, check_outputs, name_of
from lavps_cli.pipeline.pool import check_engine
from lavps_cli.pipeline.ready import Early, fit, pixels_of, read_content
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes
from lavps_cli.pipeline.runner import Run
from lavps_cli.pipeline.spread import check_spread


def restore_files(request: Restoration, listener: Listener, pipes: Pipes) -> Iterator[Outcome]:
    """Restore pictures; one that fails does not stop the others.

    The next ones are read and the last ones written meanwhile.

    Raises:
        LavpsError: Nothing can be done at all: flags, weights, device.
    """
    if request.spread.engine == "ray":
        outcomes = on_cluster(request, listener, pipes, check=check_restoration)
    else:
        outcomes = _on_this_machine(request, listener, pipes)
    with closing(outcomes):
        for outcome in outcomes:
            yield outcome
            if request.fail_fast and isinstance(outcome, Failure):
                return


def _on_this_machine(request: Restoration, listener: Listener, pipes: Pipes) -> Generator[Outcome]:
    check_engine(request.spread)
    jobs = find_jobs(request, listener, pipes, default=TEMPLATE, check=check_restoration)
    if not jobs:
        listener.note("no pictures to restore")
        return
    early: dict[int, Early] = {}
    if request.sampling.method == AUTO:
        request, jobs, early = _settled(request, jobs, listener, pipes)
    if request.gpus is not None:
        early.clear()  # Other processes read for themselves.
        outcomes = on_devices(request, jobs, listener, pipes, restore_jobs)
    else:
        outcomes = restore_jobs(request, jobs, listener, pipes, early)
    with closing(outcomes):
        yield from outcomes


def _settled(
    request: Restoration, jobs: Sequence[Job], listener: Listener, pipes: Pipes
) -> tuple[Restoration, list[Job], dict[int, Early]]:
    """Return the same with a method and its steps, which the first picture decides, and it."""
    use_threads(request.compute.threads)  # They decide what the budget suffices for.
    first = jobs[0]
    content, stamp = read_content(first.source.path, pipes)
    # Nothing that is chosen changes what the picture poses.
    case = read_case(content, name_of(first.source.path), first.request)
    sampling = first.request.sampling
    budget = parse_seconds("--budget", sampling.budget or "") / sampling.samples
    made = chosen_method(first.request, case.seen, budget, listener)
    chosen = made.sampling

    def with_method(asked: Restoration) -> Restoration:
        sampling = replace(
            asked.sampling, method=chosen.method, preset=chosen.preset, settings=chosen.settings,
            budget=None,
        )  # fmt: skip
        return replace(asked, sampling=sampling, compute=made.compute)

    jobs = [replace(job, request=with_method(job.request)) for job in jobs]
    return with_method(request), jobs, {first.index: Early(content, stamp, case)}


def restore_jobs(
    request: Restoration,
    jobs: Sequence[Job],
    listener: Listener,
    pipes: Pipes,
    early: dict[int, Early] | None = None,
) -> Generator[Outcome]:
    """Restore the pictures of jobs on one device.

    Args:
        request: What is the same for all of them: weights, device, method.
        jobs: The pictures, with what is asked about each.
        listener: Told about the work.
        pipes: For a picture from stdin or to stdout.
        early: Those that are read already, by the index of their jobs; taken out at their turn.

    Raises:
        LavpsError: Nothing can be done at all: weights, device, settings.
    """
    use_threads(request.compute.threads)
    weights = open_weights(request.compute, request.sampling.method)
    run = Run(request, tuple(jobs), listener, pipes, weights, early=early or {})
    checked(jobs, request.select.manifest, run.options_of)
    introduce(request, weights, listener)
    work = InWork()
    calls = (partial(run.read, job, work) for job in jobs)
    groups = batches(calls, fits=fit, room=run.room, weight=pixels_of, window=WINDOW)
    outcomes = overlapped(
        groups, run.restore, work, lambda ready: pixels_of(ready) > LARGE, in_turn=request.fail_fast
    )
    with closing(outcomes):
        for written in outcomes:
            yield from written


def check_restoration(request: Restoration) -> None:
    """Check what does not depend on the pictures or the weights.

    Raises:
        LavpsError: Flags are wrong, or contradict one another.
    """
    sampling, compute = request.sampling, request.compute
    check_problem(request.problem)
    if sampling.simulate:
        if request.problem.blind:
            raise UsageError(
                "--blind is for pictures whose kernel is unknown; --simulate knows it.",
                "Leave either out.",
            )
        required_task(request.problem)
    if sampling.budget is not None:
        parse_seconds("--budget", sampling.budget)
    if sampling.method == AUTO:
        check_auto(request)
    parse_count("--tile", compute.tile, 0)
    parse_count("--batch-size", compute.batch_size, 1)
    parse_pixels(compute.max_pixels)
    check_outputs(request.inputs, request.output.output, 1 if sampling.mean else sampling.samples)
    check_spread(request.inputs, sampling)
