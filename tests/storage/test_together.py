"""Lines of several threads: each kept once, many by one write, a failure told to its own writer."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lavps_cli.storage.appended import Appended
from lavps_cli.storage.together import Together

LINES = [b"%d\n" % i for i in range(200)]


def test_every_line_is_kept_once_and_those_that_wait_share_a_write() -> None:
    writes: list[list[bytes]] = []

    def write(lines: Sequence[bytes]) -> None:
        time.sleep(0.002)
        writes.append(list(lines))

    together = Together(write)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(together.add, LINES))
    assert sorted(line for lines in writes for line in lines) == sorted(LINES)
    assert len(writes) < len(LINES) / 4


def test_add_returns_when_its_line_is_kept_and_writes_do_not_overlap() -> None:
    kept: set[bytes] = set()
    busy = threading.Lock()

    def write(lines: Sequence[bytes]) -> None:
        assert busy.acquire(blocking=False)
        time.sleep(0.001)
        kept.update(lines)
        busy.release()

    together = Together(write)

    def add(line: bytes) -> bool:
        together.add(line)
        return line in kept

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(add, LINES))


def test_a_failure_is_told_once_and_the_others_try_again() -> None:
    kept: list[bytes] = []
    failures = iter([True, False, True])
    entered, go = threading.Event(), threading.Event()

    def write(lines: Sequence[bytes]) -> None:
        entered.set()
        go.wait(5)
        if next(failures, False):
            raise OSError("full")
        kept.extend(lines)

    together = Together(write)

    def add(line: bytes) -> bool:
        try:
            together.add(line)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(add, b"a\n")
        entered.wait(5)
        others = [pool.submit(add, line) for line in (b"b\n", b"c\n", b"d\n")]
        go.set()
        told = [first.result()] + [each.result() for each in others]
    assert not told[0]
    assert b"a\n" not in kept
    good = [line for line, ok in zip((b"b\n", b"c\n", b"d\n"), told[1:], strict=True) if ok]
    assert len(good) >= 2
    assert sorted(kept) == good


def test_lines_of_a_file_survive_one_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "below" / "lines.jsonl"
    Appended(path).add(b"first")
    with path.open("ab") as file:
        file.write(b"cut sh")
    lines = Appended(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lines.add, [b"x"] * 20))
    assert lines.read() == [b"first", b"cut sh", *[b"x"] * 20]


@pytest.mark.parametrize("make", ["folder", "below a file"])
def test_what_cannot_be_written_is_an_error_for_everyone(tmp_path: Path, make: str) -> None:
    path = tmp_path / "x"
    path.mkdir() if make == "folder" else path.write_bytes(b"")
    lines = Appended(path if make == "folder" else path / "y")
    for _ in range(3):
        with pytest.raises(OSError, match="x"):
            lines.add(b"line")
