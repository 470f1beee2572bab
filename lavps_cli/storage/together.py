"""Lines of several threads, of which those that wait together are kept by one write."""

import threading
from collections.abc import Callable, Sequence


class Together:
    """Whoever finds nobody writing writes for all who wait.

    Args:
        write: Keeps lines, each with a newline, for good; raises where it cannot.
    """

    def __init__(self, write: Callable[[Sequence[bytes]], None]) -> None:
        self._write = write
        self._changed = threading.Condition()
        self._waiting: dict[int, bytes] = {}
        self._count = 0
        self._writes = False

    def add(self, line: bytes) -> None:
        """Return when a line is kept.

        Raises:
            OSError: It could not be written; it may be there all the same.
        """
        with self._changed:
            mine = self._count
            self._count += 1
            self._waiting[mine] = line.rstrip(b"\n") + b"\n"
            self._changed.wait_for(lambda: not self._writes or mine not in self._waiting)
            if mine not in self._waiting:
                return
            self._writes = True
            lines = dict(self._waiting)
        kept = False
        try:
            self._write(list(lines.values()))
            kept = True
        finally:
            with self._changed:
                self._writes = False
                # What could not be written is the others' to try: each is told of its own line.
                for number in lines if kept else (mine,):
                    del self._waiting[number]
                self._changed.notify_all()
