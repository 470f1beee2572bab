"""Objects of a store, which answer what paths are asked.

A `Remote` fails as a path does, with an OSError that has words: who takes paths takes it. What is
read is bounded by the reader, and what it holds is checked there.
"""

import errno
import hashlib
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath, PurePosixPath
from typing import Any, TypeVar

from lavps_cli.storage.failures import asked
from lavps_cli.storage.names import checked, fault

_BLOCK = 8 << 20
_MARKS = ("ETag", "etag", "md5Hash", "crc32c", "blob_id", "oid", "generation", "LastModified",
          "updated", "mtime", "created")  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What a store tells of an object, by the names of `os.stat_result`."""

    st_size: int
    st_mtime_ns: int
    """A number that changes with the content: of the version, not a time."""


@dataclass(frozen=True, order=True)
class Remote:
    """An object of a store, or all those below a name."""

    scheme: str
    key: str
    """Bucket and name; no slash at either end."""
    about: About | None = field(default=None, compare=False, repr=False)
    """What a listing told of it."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.key)

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def parent(self) -> "Remote":
        head = self.key.rpartition("/")[0]
        return Remote(self.scheme, head or self.key)

    @property
    def parents(self) -> "list[Remote]":
        folder, found = self, []
        while folder.parent != folder:
            folder = folder.parent
            found.append(folder)
        return found

    def __truediv__(self, name: str | PurePath) -> "Remote":
        return Remote(self.scheme, checked(f"{self.key}/{name}", str(self)))

    def with_name(self, name: str) -> "Remote":
        return self.parent / name

    def with_suffix(self, suffix: str) -> "Remote":
        return self.with_name(f"{self.stem}{suffix}")

    def relative_to(self, folder: "Remote") -> PurePosixPath:
        return self._pure.relative_to(folder._pure)

    def absolute(self) -> "Remote":
        return self

    def resolve(self) -> "Remote":
        return self

    def exists(self) -> bool:
        return self._info() is not None

    def is_file(self) -> bool:
        return self.about is not None or (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        return (self._info() or {}).get("type") == "directory"

    def stat(self) -> About:
        """Return size and version.

        Raises:
            OSError: There is no such object, or it cannot be asked.
        """
        if self.about is not None:
            return self.about
        info = self._info()
        if info is None or info.get("type") != "file":
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return _about(info)

    def read_bytes(self, most: int | None = None) -> bytes:
        """Return the content.

        Args:
            most: Bytes that are fetched at most; of a larger object that many and one more.

        Raises:
            OSError: It cannot be read.
        """
        size = self.stat().st_size
        if most is not None and size > most:
            return self.range(0, most + 1)

        def whole(store: Any) -> bytes:
            content = bytes(store.cat_file(self.key))
            if len(content) < size:
                raise ConnectionError(f"{len(content)} of {size} bytes came")
            return content

        return self._ask(whole)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Return a stream that can be read anywhere, a few MiB at a time.

        Raises:
            OSError: There is no such object.
        """
        assert mode == "rb", "objects are written whole"
        return io.BufferedReader(_Ranges(self), _BLOCK)

    def write_bytes(self, content: bytes) -> int:
        """Write an object: whole or, whatever happens, not at all; return its size.

        Stores give an object its name when all of it has come.

        Raises:
            OSError: It cannot be written.
        """
        self._ask(lambda store: store.pipe_file(self.key, content))
        return len(content)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._ask(lambda store: store.rm_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: folders are the names of what lies in them."""

    def below(self, *, recursive: bool = True) -> "list[Remote]":
        """Return the objects below a name, sorted; names that no path may have are left out.

        Raises:
            OSError: It cannot be listed.
        """
        depth = None if recursive else 1
        found = self._ask(lambda store: dict(store.find(self.key, maxdepth=depth, detail=True)))
        named = {key.strip("/"): info for key, info in found.items()}
        return [
            Remote(self.scheme, key, _about(named[key]))
            for key in sorted(named)
            if fault(key) is None
        ]

    def glob(self, pattern: str) -> "list[Remote]":
        """Return the objects below a name that a pattern such as `*.png` or `**/*.png` fits."""
        fits = _pattern(pattern)
        return [r for r in self.below() if fits.fullmatch(r.relative_to(self).as_posix())]

    def _info(self) -> dict[str, Any] | None:
        try:
            return self._ask(lambda store: dict(store.info(self.key)))
        except FileNotFoundError:
            return None

    def range(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`."""
        return self._ask(lambda store: bytes(store.cat_file(self.key, start=start, end=end)))

    def _ask(self, ask: Callable[[Any], T]) -> T:
        import fsspec

        def call() -> T:
            # Others write there, too: a listing is true only now.
            return ask(fsspec.filesystem(self.scheme, use_listings_cache=False))

        return asked(str(self), call)


class _Ranges(io.RawIOBase):
    """An object as a stream; each read is a request, made again where the connection breaks."""

    def __init__(self, remote: Remote) -> None:
        self.remote, self.place = remote, 0
        self._size = remote.stat().st_size

    @cached_property
    def name(self) -> str:
        return str(self.remote)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self._size}[whence]
        self.place = max(base + offset, 0)
        return self.place

    def readinto(self, buffer: Any, /) -> int:
        end = min(self.place + len(buffer), self._size)
        if end <= self.place:
            return 0
        content = self.remote.range(self.place, end)
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def _pattern(pattern: str) -> re.Pattern[str]:
    def translated(part: str) -> str:
        return re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")

    parts = [".*" if part == "**" else translated(part) for part in pattern.split("/")]
    return re.compile("/".join(parts).replace(".*/", "(?:.*/)?"))


def _about(info: dict[str, Any]) -> About:
    return About(int(info.get("size") or 0), _version(info))


def _version(info: dict[str, Any]) -> int:
    """Return a number that is another one for another content."""
    told = next((info[key] for key in _MARKS if info.get(key)), None)
    if told is None:
        return 0
    digest = hashlib.sha256(str(told).encode()).digest()
    return int.from_bytes(digest[:7]) | 1
