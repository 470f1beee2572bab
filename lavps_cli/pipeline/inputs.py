"""Which pictures a command line names: files, folders, patterns, lists, and shares of them."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path, PurePath
from typing import TypeVar

from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import FORMATS
from lavps_cli.images.sniffing import is_picture
from lavps_cli.pipeline.job import Source
from lavps_cli.pipeline.paths import STDIO
from lavps_cli.pipeline.requests import Selection
from lavps_cli.pipeline.results import Listener, Pipes
from lavps_cli.storage.names import is_hidden, natural
from lavps_cli.storage.places import is_url, located
from lavps_cli.storage.remote import Remote

P = TypeVar("P", Path, Remote)
_SUFFIXES = {suffix for entry in FORMATS.values() for suffix in entry.suffixes} | {
    ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".jp2", ".j2k", ".heic", ".heif", ".jpe", ".jfif",
}  # fmt: skip
"""Of pictures that are read."""


def find_sources(
    inputs: Iterable[str], select: Selection, listener: Listener, pipes: Pipes
) -> list[Source]:
    """Return what is named, in the order given, folders in natural order, nothing twice.

    `--shard` is not applied: names must not depend on it.

    Raises:
        UsageError: The options contradict each other, or a list cannot be read.
        DataError: A folder holds no picture.
    """
    _check(select)
    named = [source for name in inputs for source in _matching(name)]
    if named.count(STDIO) + (select.files_from == STDIO) > 1:
        raise UsageError("stdin can be read once.", "Give - once.")
    if select.files_from is not None:
        named += _listed(select, pipes)
    found: dict[str, Source] = {}
    for name in named:
        for source in _expanded(name, select, listener):
            found.setdefault(_whole(source.path), source)
    return list(found.values())[: select.limit]


def are_several(sources: Sequence[Source]) -> bool:
    """Return whether inputs are more than one picture, or whatever a folder holds."""
    return len(sources) > 1 or any(source.root is not None for source in sources)


def share(select: Selection) -> tuple[int, int]:
    """Return which share of how many `--shard i/n` asks for, from 0.

    Raises:
        UsageError: It is no share.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", select.shard or "1/1")
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"--shard {select.shard}: expected i/n, from 1/n to n/n.", "For example:  --shard 1/4"
        )
    return int(match[1]) - 1, int(match[2])


def _check(select: Selection) -> None:
    share(select)
    if select.null and select.files_from is None:
        raise UsageError("--null is about a list.", "Add:  --files-from FILE")


def _listed(select: Selection, pipes: Pipes) -> list[str]:
    assert select.files_from is not None
    content = read_list("--files-from", select.files_from, pipes)
    lines = content.split(b"\0") if select.null else content.splitlines()
    names = [os.fsdecode(line) for line in lines if line]
    if not select.null and any("\0" in name for name in names):
        raise UsageError("--files-from: NUL ends the names of this list.", "Add:  -0")
    if STDIO in names:
        raise UsageError("--files-from names -, which is no file.", "A file of that name:  ./-")
    return names


def read_list(option: str, name: str, pipes: Pipes) -> bytes:
    """Return the content of a list, from a file or stdin.

    Raises:
        UsageError: It cannot be read.
    """
    if name == STDIO:
        return pipes.read()
    try:
        return located(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{option} {name}: {reason}.", "Check the path.") from error


def _matching(name: str) -> list[str]:
    """Return the files of a pattern, natural sort; the name itself where there are none."""
    if name == STDIO or not has_magic(name) or is_url(name) or _test(os.path.lexists, name):
        return [name]
    matches = sorted(glob(name, recursive=True), key=natural)  # noqa: PTH207  # absolute too
    return [match for match in matches if not _test(os.path.isdir, match)] or [name]


def _expanded(name: str, select: Selection, listener: Listener) -> Iterable[Source]:
    place = Path(name) if name == STDIO else located(name)
    if isinstance(place, Remote):
        return in_store(place, select, listener)
    name = str(place)  # Of file:// the path.
    if name != STDIO and _test(os.path.isdir, name):
        return _of_folder(name, select, listener)
    return [Source(name)]


def _whole(path: str) -> str:
    return path if path == STDIO or is_url(path) else os.path.abspath(path)  # noqa: PTH100  # links stay


def _test(question: Callable[[str], bool], name: str) -> bool:
    try:
        return question(name)
    except (OSError, ValueError):  # No file can be called that.
        return False


def _of_folder(name: str, select: Selection, listener: Listener) -> Iterator[Source]:
    folder = Path(name)
    return chosen(folder, _walk(folder, select.recursive, set()), is_picture, select, listener)


def chosen(
    folder: P,
    paths: Iterable[P],
    is_picture: Callable[[P], bool],
    select: Selection,
    listener: Listener,
) -> Iterator[Source]:
    """Yield the pictures of a folder that are wanted.

    Raises:
        DataError: There are none.
    """
    others = count = 0
    for path in paths:
        tree = path.relative_to(folder)
        if not _wanted(tree, select):
            continue
        if not is_picture(path):
            others += 1
            listener.detail(f"{path} is no picture")
            continue
        count += 1
        yield Source(str(path), str(tree.parent) if tree.parent.name else "", folder)
    if others:
        listener.note(f"{folder}: {others} files are no pictures and are left out")
    if not count:
        raise DataError(
            f"{folder} holds no pictures.",
            "Check --include and --exclude." if select.recursive else "Look below it:  -r",
        )


def in_store(place: Remote, select: Selection, listener: Listener) -> Iterator[Source]:
    """Yield what a URL names: an object, those of a pattern, or the pictures below a name.

    Raises:
        DataError: It cannot be listed, or holds no picture.
    """
    try:
        if has_magic(str(place)):
            parts = place.key.split("/")
            first = next(i for i, part in enumerate(parts) if has_magic(part))
            folder = Remote(place.scheme, "/".join(parts[:first]))
            found = folder.glob("/".join(parts[first:]))
            matches = sorted(
                (str(e) for e in found if not is_hidden(e.relative_to(folder))), key=natural
            )
            yield from map(Source, matches or [str(place)])
        elif _is_called_picture(place) or not place.is_dir():
            yield Source(str(place))
        else:
            below = place.below(recursive=select.recursive)
            below.sort(key=lambda each: natural(each.key))
            seen = [each for each in below if not is_hidden(each.relative_to(place))]
            yield from chosen(place, seen, _is_called_picture, select, listener)
    except OSError as error:
        raise DataError(
            f"{place} cannot be listed: {error.strerror}.", "Check the URL and the credentials."
        ) from error


def _is_called_picture(place: Remote) -> bool:
    """Return whether an object has the name of a picture: opening all to look costs too much."""
    return place.suffix.lower() in _SUFFIXES


def _wanted(tree: PurePath, select: Selection) -> bool:
    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(tree.name, p) or fnmatchcase(str(tree), p) for p in patterns)

    return not matches(select.exclude) and (not select.include or matches(select.include))


def _walk(folder: Path, recursive: bool, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files of a folder; each folder once, by whatever links it is reached."""
    try:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in seen:
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            kinds = {entry.name: _kind(entry) for entry in visible}
    except OSError:
        yield folder  # Reading it tells why; what is beside it is done.
        return
    for name in sorted(kinds, key=natural):
        if kinds[name] == "file":
            yield folder / name
    for name in sorted(kinds, key=natural) if recursive else ():
        if kinds[name] == "folder":
            yield from _walk(folder / name, recursive, seen)


def _kind(entry: "os.DirEntry[str]") -> str:
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:  # A link in a circle.
        return ""
