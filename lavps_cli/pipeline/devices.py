"""Several devices: one process each, with every n-th picture."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from queue import Empty
from typing import Any, NoReturn

from lavps_cli.errors import DeviceError, LavpsError, UsageError
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.model import devices, pick_device
from lavps_cli.pipeline.paths import STDIO
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import FILES_ONLY, Failure, Listener, Outcome, Pipes, Progress

_POLL = 0.5
_OUTCOME, _ERROR, _END = "outcome", "error", "end"
Work = Callable[[Restoration, Sequence[Job], Listener, Pipes], Generator[Outcome]]


def chosen_devices(text: str) -> list[str]:
    """Return the devices of `--gpus`: a number, `all`, or names such as `cuda:0,cuda:2`.

    Raises:
        UsageError: It is none of these.
        DeviceError: There are not so many.
    """
    if text != "all" and not text.isdecimal():
        names = [name.strip() for name in text.split(",")]
        for name in names:
            pick_device(name)
        return names
    present = [name for name in devices() if name.startswith(("cuda", "xpu"))]
    wanted = len(present) if text == "all" else int(text)
    if wanted < 1 and text != "all":
        raise UsageError(f"--gpus {text}: expected a number, all, or names.", "For example:  all")
    if not present or wanted > len(present):
        there = ", ".join(present) or "none"
        raise DeviceError(f"--gpus {text}: there are {there}.", "Leave it out, or name devices.")
    return present[:wanted]


def on_devices(
    request: Restoration, jobs: Sequence[Job], listener: Listener, pipes: Pipes, work: Work
) -> Generator[Outcome]:
    """Do jobs in one process per device, and yield the outcomes as they come.

    A process that ends before its time fails the pictures that it had not done.

    Raises:
        LavpsError: A device or the weights cannot be used.
    """
    assert request.gpus is not None
    if request.compute.device != "auto":
        raise UsageError("--gpus and --device both choose devices.", "Give one of them.")
    if any(job.source.path == STDIO for job in jobs):
        raise UsageError("--gpus is for files, not for stdin.", "Leave it out.")
    names = chosen_devices(request.gpus)[: len(jobs)]
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    processes, left = [], []
    try:
        for index, name in enumerate(names):
            compute = replace(request.compute, device=name)
            mine = [
                replace(job, request=replace(job.request, compute=compute))
                for job in jobs[index :: len(names)]
            ]
            own = replace(request, compute=compute)
            process = context.Process(
                target=_work, args=(index, own, mine, queue, work, os.getpid()), daemon=True
            )
            process.start()
            processes.append(process)
            left.append({job.source.path for job in mine})
        yield from _outcomes(names, processes, left, queue, listener)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _outcomes(
    names: list[str],
    processes: list[Any],
    left: list[set[str]],
    queue: Any,
    listener: Listener,
) -> Generator[Outcome]:
    running = set(range(len(names)))
    while running:
        ended = {i for i in running if not processes[i].is_alive()}
        try:
            while True:
                index, what, value = queue.get(timeout=0 if ended else _POLL)
                if what == _OUTCOME:
                    left[index].discard(value.input)
                    yield value
                elif what == _ERROR:
                    raise value
                elif what == _END:
                    running.discard(index)
                else:
                    getattr(listener, what)(value)
                if not running:
                    break
        except Empty:
            pass
        for i in ended & running:
            running.discard(i)
            code = processes[i].exitcode
            error = DeviceError(
                f"the process on {names[i]} has ended with code {code}.",
                "The same command goes on where it stopped.",
            )
            yield from (Failure(input=source, error=error) for source in sorted(left[i]))


class _Messages:
    """A listener in another process."""

    def __init__(self, index: int, queue: Any) -> None:
        self.index, self.queue = index, queue

    def note(self, text: str) -> None:
        self.queue.put((self.index, "note", text))

    def detail(self, text: str) -> None:
        self.queue.put((self.index, "detail", text))

    def warn(self, text: str) -> None:
        self.queue.put((self.index, "warn", text))

    def progress(self, progress: Progress) -> None:
        self.queue.put((self.index, "progress", progress))


def _work(
    index: int, request: Restoration, jobs: list[Job], queue: Any, work: Work, parent: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends this process.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        for outcome in work(request, jobs, _Messages(index, queue), FILES_ONLY):
            queue.put((index, _OUTCOME, outcome))
            if os.getppid() != parent:
                return
        queue.put((index, _END, None))
    except LavpsError as error:
        queue.put((index, _ERROR, error))
    finally:
        # Nothing is to be tidied up any more; raising in what runs at exit would print tracebacks.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminated(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # Once is enough: what is computed is being written.
    raise SystemExit(0)
