"""Reading, restoring and writing at the same time."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

from lavps_cli.pipeline.overlap import Closed, InWork, batches, overlapped


def grouped(text: str, most: int = 3, window: int = 100) -> list[str]:
    """Group letters of one kind; digits are alone."""
    groups = batches(
        [partial(str, letter) for letter in text],
        fits=lambda a, b: a == b,
        room=lambda letter: 1 if letter.isdigit() else most,
        weight=lambda letter: 10,
        window=window,
    )
    return ["".join(group) for group in groups]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("aaaaaaa", ["aaa", "aaa", "a"]),
        ("ababab", ["aaa", "bbb"]),
        ("a1b2", ["a", "1", "b", "2"]),
        ("abcab", ["aa", "bb", "c"]),
        ("111", ["1", "1", "1"]),
    ],
)
def test_groups(text: str, expected: list[str]) -> None:
    assert grouped(text) == expected


def test_nothing_waits_for_ever() -> None:
    assert grouped("abcdefgh", window=30) == [*"abcdefgh"]
    assert sorted("".join(grouped("abcabcbbdcaad", window=40))) == sorted("abcabcbbdcaad")


def work_of(read: Callable[[int], int], items: int) -> Iterator[list[int]]:
    for item in range(items):
        yield [read(item)]


def test_results_come_whole_and_in_order() -> None:
    results = overlapped(
        work_of(int, 50), lambda group: lambda: 2 * group[0], InWork(), lambda _: False
    )
    assert list(results) == list(range(0, 100, 2))


def test_the_next_is_read_while_one_is_in_work() -> None:
    read: list[int] = []
    seen = threading.Event()

    def reading(item: int) -> int:
        read.append(item)
        if item == 1:
            seen.set()
        return item

    def restore(group: list[int]) -> Callable[[], int]:
        assert seen.wait(20)  # Else it would be read afterwards.
        return lambda: group[0]

    assert list(overlapped(work_of(reading, 3), restore, InWork(), lambda _: False)) == [0, 1, 2]


def test_large_ones_are_alone() -> None:
    held: set[int] = set()

    def reading(item: int) -> int:
        assert not held
        held.add(item)
        return item

    def restore(group: list[int]) -> Callable[[], int]:
        def finish() -> int:
            held.remove(group[0])
            return group[0]

        return finish

    results = overlapped(work_of(reading, 6), restore, InWork(), lambda _: True)
    assert list(results) == list(range(6))


def test_in_turn_each_is_told_before_the_next_begins() -> None:
    begun: list[int] = []

    def restore(group: list[int]) -> Callable[[], int]:
        begun.append(group[0])
        return lambda: group[0]

    results = overlapped(work_of(int, 5), restore, InWork(), lambda _: False, in_turn=True)
    for expected in range(5):
        assert next(results) == expected
        assert begun == list(range(expected + 1))
    results.close()


@pytest.mark.parametrize("where", ["read", "restore", "finish"])
def test_what_is_raised_anywhere_ends_it(where: str) -> None:
    def at(place: str, item: int) -> int:
        if place == where and item == 2:
            raise ZeroDivisionError
        return item

    def restore(group: list[int]) -> Callable[[], int]:
        at("restore", group[0])
        return lambda: at("finish", group[0])

    results = overlapped(work_of(partial(at, "read"), 9), restore, InWork(), lambda _: False)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_who_stops_early_gets_what_was_computed_written() -> None:
    written: list[int] = []

    def restore(group: list[int]) -> Callable[[], int]:
        def finish() -> int:
            written.append(group[0])
            return group[0]

        return finish

    endless = ([item] for item in count())
    results = overlapped(endless, restore, InWork(), lambda _: False)
    for _ in range(3):
        last = next(results)
    results.close()
    assert written[: last + 1] == list(range(last + 1))
    assert written == list(range(len(written)))


def test_who_waits_is_told_when_nobody_works() -> None:
    work = InWork()
    work.begin()
    work.close()
    with pytest.raises(Closed):
        work.wait()
