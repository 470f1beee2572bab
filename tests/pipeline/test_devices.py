"""Processes of several devices."""

import os
import signal
from collections.abc import Generator, Sequence
from queue import Queue
from typing import Any

import pytest

from lavps_cli.errors import DeviceError
from lavps_cli.pipeline.devices import _work
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes

FAILED = Failure(input="a.png", error=DeviceError("it is tired."))


@pytest.fixture
def _handlers() -> Generator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_who_is_ended_tidies_up_once_and_nothing_is_raised_afterwards() -> None:
    tidy: list[str] = []

    def work(
        request: Restoration, jobs: Sequence[Job], listener: Listener, pipes: Pipes
    ) -> Generator[Outcome]:
        try:
            yield FAILED
            os.kill(os.getpid(), signal.SIGTERM)
            yield FAILED
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # The parent is impatient.
            tidy.append("done")

    queue: Queue[Any] = Queue()
    with pytest.raises(SystemExit) as ended:
        _work(0, Restoration(inputs=()), [], queue, work, os.getppid())
    assert ended.value.code == 0
    assert tidy == ["done"]
    assert queue.qsize() == 1
    # What other packages do at exit is not interrupted by an exception: the process just ends.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
