"""Lines at the end of a file, each on the disk before its writer goes on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lavps_cli.storage.together import Together


@dataclass(frozen=True)
class Appended:
    """Lines of a file."""

    path: Path

    @cached_property
    def _together(self) -> Together:
        return Together(self._append)

    def read(self) -> list[bytes]:
        """Return all lines.

        Raises:
            OSError: They cannot be read.
        """
        return self.path.read_bytes().splitlines()

    def add(self, line: bytes) -> None:
        """Append a line, and return when it is on the disk; calls of several threads share a sync.

        Raises:
            OSError: It cannot be written; it may be kept all the same.
        """
        self._together.add(line)

    def _append(self, lines: Sequence[bytes]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A line that a full disk or a kill cut short must not swallow the next one.
        start = b"" if _ends_whole(self.path) else b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _write(descriptor, start + b"".join(lines))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _ends_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return True


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
