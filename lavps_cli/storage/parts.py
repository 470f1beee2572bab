"""Lines that grow in a store, which cannot append: as objects of some hundred lines each.

The last object is written anew, whole, with all lines that have come since; when it has grown to a
MiB the next begins. A million journal lines are some 400 objects, and however many add lines at
once share one request. Writers never share an object: each has names of its own.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from secrets import token_hex

from lavps_cli.storage.remote import Remote
from lavps_cli.storage.together import Together

_FULL = 1 << 20
_MOST = 1 << 26
"""Bytes that are read of an object, which may be of another make."""


@dataclass(eq=False)
class Parts:
    """Lines below a name."""

    folder: Remote
    _writer: str = field(default_factory=lambda: f"{time.time_ns() // 1000:016d}-{token_hex(4)}")
    _number: int = 0
    _lines: list[bytes] = field(default_factory=list)
    """Of the last object."""

    @cached_property
    def _together(self) -> Together:
        return Together(self._write)

    def read(self) -> Iterator[bytes]:
        """Yield all lines, in the order in which their objects were begun.

        Raises:
            OSError: They cannot be read.
        """
        for each in self.folder.below(recursive=False):
            if each.suffix == ".jsonl":
                yield from each.read_bytes(_MOST).splitlines()

    def add(self, line: bytes) -> None:
        """Add a line, and return when it is kept; calls of several threads share a request.

        Raises:
            OSError: It cannot be written; it may be kept all the same.
        """
        self._together.add(line)

    def _write(self, lines: Sequence[bytes]) -> None:
        content = b"".join([*self._lines, *lines])
        (self.folder / f"{self._writer}-{self._number:06d}.jsonl").write_bytes(content)
        self._lines += lines
        if len(content) >= _FULL:
            self._number += 1
            self._lines.clear()
