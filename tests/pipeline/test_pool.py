"""A pool of workers loses nothing: laws of a small cluster on this machine."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lavps_cli.errors import DeviceError, UsageError
from lavps_cli.pipeline.pool import Cluster, Done, Lost, connect, pooled, room

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own.
    pytest.mark.usefixtures("cluster"),
]


class Ear:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.heard.append(text)

    def progress(self, progress: object) -> None: ...


def results(
    count: int, work: Callable[[], Callable[[int], Any]], **cluster: Any
) -> tuple[dict[int, Any], list[int], Ear]:
    ear = Ear()
    done, lost = {}, []
    for each in pooled(iter(range(count)), work, Cluster(actors=2, **cluster), ear):
        if isinstance(each, Lost):
            lost.append(each.task)
        else:
            assert each.task not in done
            done[each.task] = each.result
    return done, lost, ear


def test_every_task_is_done_once_and_few_are_taken_ahead() -> None:
    def work() -> Callable[[int], int]:
        return lambda n: n * n

    taken = most = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for n in range(60):
            taken += 1
            yield n

    found = {}
    for each in pooled(tasks(), work, Cluster(actors=2, ahead=2), Ear()):
        assert isinstance(each, Done)
        most = max(most, taken - len(found))
        found[each.task] = each.result
        time.sleep(0.002)
    assert found == {n: n * n for n in range(60)}
    assert most <= 2 * 2 + 1


def test_a_worker_that_ends_costs_nothing(tmp_path: Path) -> None:
    once = tmp_path / "once"

    def work() -> Callable[[int], int]:
        def do(n: int) -> int:
            if n == 5 and not once.exists():
                once.touch()
                os._exit(3)
            return n + 1

        return do

    done, lost, ear = results(20, work)
    assert done == {n: n + 1 for n in range(20)}
    assert not lost
    assert any("a worker has ended" in text for text in ear.heard)


def test_a_task_that_kills_its_workers_is_the_only_one_lost(tmp_path: Path) -> None:
    def work() -> Callable[[int], int]:
        def do(n: int) -> int:
            if n == 4:
                (tmp_path / f"{time.monotonic_ns()}").touch()
                os._exit(3)
            return n + 1

        return do

    done, lost, _ = results(14, work)
    assert lost == [4]
    assert sorted(done) == [n for n in range(14) if n != 4]
    assert len(list(tmp_path.iterdir())) == 2  # Twice, and not for ever.


def test_what_a_user_can_act_on_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> Callable[[int], int]:
        raise UsageError("no such weights.", "Choose others.")

    with pytest.raises(UsageError, match="no such weights") as error:
        results(3, work)
    assert error.value.hint == "Choose others."

    monkeypatch.setattr("lavps_cli.pipeline.pool._MOST_STARTS", 1)

    def dies() -> Callable[[int], int]:
        os._exit(3)

    with pytest.raises(DeviceError, match="end before they begin"):
        results(3, dies)


def test_joining_twice_is_joining_once() -> None:
    leave = connect(Cluster())
    leave()
    assert room(Cluster(cpus=1.0)) == 2
    assert room(Cluster(cpus=0.5)) == 4
