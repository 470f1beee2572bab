"""Batches made ahead are those that were asked for."""

import threading
import time
from itertools import count

import pytest

from lavps_cli.data.prefetch import Prefetch


def test_results_come_in_order_and_end() -> None:
    assert list(Prefetch(lambda i: i * i, range(50))) == [i * i for i in range(50)]


def test_only_a_few_are_made_ahead() -> None:
    made: list[int] = []
    ahead = Prefetch(made.append, count(), depth=2)
    next(ahead)
    time.sleep(0.1)
    assert len(made) <= 4
    ahead.close()


def test_an_error_is_raised_where_its_result_would_have_been() -> None:
    def make(i: int) -> int:
        if i == 2:
            raise ValueError("broken")
        return i

    ahead = Prefetch(make, range(9))
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    ahead = Prefetch(lambda i: i, count())
    assert next(ahead) == 0
    ahead.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(ahead)


def test_waiting_is_measured() -> None:
    slow = Prefetch(lambda i: time.sleep(0.05), range(2))
    list(slow)
    assert 0.04 < slow.waited < 1
