"""Data sets by the texts that name them: folders, archives, the Hub, and known names."""

import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from lavps_cli.data.known import KNOWN, Known, SplitName
from lavps_cli.errors import UsageError, WeightsError, suggestion
from lavps_cli.storage.names import is_hidden, natural
from lavps_cli.storage.places import Place, is_url, located
from lavps_cli.storage.remote import Remote

CropDefault: TypeAlias = Literal["whole", "random"]
P = TypeVar("P", Path, Remote)
MAX_BYTES = 256 << 20
"""Of one picture's file; larger ones are passed over."""


@dataclass(frozen=True, eq=False)
class Source:
    """Files that may be pictures, in an order that does not change.

    Names inside archives are for messages only: nothing is extracted, no name is used as a path.
    """

    name: str
    files: Callable[[], Iterator[tuple[str, bytes]]]
    """Yields name and content of each file."""
    fingerprint: str
    """Changes when the files do."""
    licence: str | None = None
    crop: CropDefault = "random"


def open_source(text: str, split: SplitName = "train") -> Source:
    """Return the data set that a text names.

    Args:
        text: A folder, a pattern such as `photos/*.jpg`, `x.zip`, `x.tar`, `shards-{000..099}.tar`,
            each also by URL, `hf:user/name[:split]`, a known name, or `NAME=DIR`.
        split: Of a known data set.

    Raises:
        WeightsError: It is not to be had here (exit code 5).
        UsageError: The text names nothing.
    """
    if is_url(text):
        return _from_url(text)
    if text.startswith("hf:"):
        return _from_hub(text)
    name, equals, folder = text.partition("=")
    if name in KNOWN:
        return _known(name, folder if equals else None, split)
    if equals and not Path(text).exists():
        raise UsageError(
            f"--dataset {text}: there is no known data set {name!r}.", suggestion(name, list(KNOWN))
        )
    return _from_disk(text, Path(text))


def _from_disk(text: str, path: Path) -> Source:
    if path.is_dir():
        return _from_files(text, _walk(path))
    shards = _braces(text)
    if len(shards) > 1 or path.suffix in (".tar", ".zip"):
        return _from_archives(text, [Path(shard) for shard in shards])
    if any(character in text for character in "*?["):
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        return _from_files(text, _natural([p for p in found if p.is_file()]))
    raise _missing(text)


def _from_url(text: str) -> Source:
    if text.startswith("file://"):
        path = str(located(text))
        return _from_disk(path, Path(path))
    try:
        shards = [located(shard) for shard in _braces(text)]
        if len(shards) > 1 or text.endswith((".tar", ".zip")):
            return _from_archives(text, shards)
        folder, _, pattern = text.partition("*")
        if pattern:
            head, _, tail = folder.rpartition("/")
            found = located(head)
            assert isinstance(found, Remote)
            return _from_files(text, _natural(found.glob(f"{tail}*{pattern}")))
        (found,) = shards
        assert isinstance(found, Remote)
        seen = [each for each in found.below() if not is_hidden(each.relative_to(found))]
        return _from_files(text, _natural(seen))
    except OSError as error:
        raise WeightsError(
            f"--dataset {text}: {error.strerror or error}.", "Check the URL and the credentials."
        ) from error


def _missing(text: str) -> WeightsError:
    return WeightsError(
        f"--dataset {text}: there is no such folder, archive or pattern.",
        "Pass a folder:  --dataset DIR      Known names:  lavps train --list-datasets",
    )


def _known(name: str, folder: str | None, split: SplitName) -> Source:
    known = KNOWN[name]
    place = Path(folder) if folder is not None else _found(known)
    if place is None or not place.is_dir():
        raise WeightsError(
            f"--dataset {name}: its pictures are not here, and cannot be fetched "
            f"({known.source}; {known.licence}).",
            f"Pass a folder:  --dataset {name}=DIR      or set LAVPS_DATA to the folder above it",
        )
    paths = {str(path.relative_to(place)): path for path in _walk(place)}
    chosen = known.splits[split](list(paths))
    source = _from_files(f"{name} ({split})", [paths[file] for file in chosen])
    return Source(source.name, source.files, source.fingerprint, known.licence, "whole")


def _found(known: Known) -> Path | None:
    home = os.environ.get("LAVPS_DATA")
    places = [Path(home) / folder for folder in known.folders] if home else []
    return next((place for place in places if place.is_dir()), None)


def _walk(folder: Path) -> list[Path]:
    """Return all files below a folder but hidden ones, in natural order."""
    return _natural(
        [
            path
            for path in folder.rglob("*")
            if path.is_file() and not is_hidden(path.relative_to(folder))
        ]
    )


def _natural(paths: Sequence[P]) -> list[P]:
    return sorted(paths, key=lambda path: natural(str(path)))


def _from_files(name: str, paths: Sequence[Place]) -> Source:
    def files() -> Iterator[tuple[str, bytes]]:
        for path in paths:
            try:
                content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
            except OSError:
                content = b""
            yield path.name, content

    if not paths:
        raise _missing(name)
    return Source(name, files, _stamp(paths))


def _stamp(paths: Sequence[Place]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        about = path.stat()
        digest.update(f"{path.name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _braces(text: str) -> list[str]:
    """Return the names that `{000..099}` stands for."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if match is None:
        return [text]
    first, last = int(match[1]), int(match[2])
    width, start, end = len(match[1]), text[: match.start()], text[match.end() :]
    return [f"{start}{i:0{width}d}{end}" for i in range(first, last + 1)]


def _from_archives(name: str, paths: Sequence[Place]) -> Source:
    for path in paths:
        if not path.is_file():
            raise _missing(str(path))

    def files() -> Iterator[tuple[str, bytes]]:
        for path in paths:
            try:
                yield from _members(path)
            except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
                raise WeightsError(
                    f"{path} cannot be read: {error}.", "Get the archive again, or leave it out."
                ) from error

    return Source(name, files, _stamp(paths))


def _members(path: Place) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of an archive, by name; larger ones than allowed are empty."""
    if path.suffix == ".zip":
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            for info in sorted(infos, key=lambda info: info.filename):
                small = info.file_size <= MAX_BYTES
                yield info.filename, archive.read(info) if small else b""
        return
    with path.open("rb") as stream, tarfile.open(fileobj=stream) as tar:
        for member in tar:
            if member.isreg():
                content = tar.extractfile(member) if member.size <= MAX_BYTES else None
                yield member.name, content.read() if content is not None else b""


def _from_hub(text: str) -> Source:
    if find_spec("datasets") is None:
        raise WeightsError(
            f"--dataset {text}: the package `datasets` is not installed.",
            'Install it:  pip install "lavps[hf-data]"',
        )
    datasets = import_module("datasets")
    repository, _, split = text.removeprefix("hf:").partition(":")
    try:
        table = datasets.load_dataset(repository, split=split or "train")
    except Exception as error:  # The library raises whatever its own backends raise.
        raise WeightsError(
            f"--dataset {text}: {type(error).__name__}: {str(error).splitlines()[0]}",
            "Check the name, the split and the network, or pass a folder:  --dataset DIR",
        ) from error
    columns = [n for n, f in table.features.items() if isinstance(f, datasets.Image)]
    if not columns:
        raise WeightsError(
            f"--dataset {text}: it has no column of pictures, only {', '.join(table.features)}.",
            "Choose another data set.",
        )
    table = table.cast_column(columns[0], datasets.Image(decode=False))

    def files() -> Iterator[tuple[str, bytes]]:
        for i, row in enumerate(table):
            yield str(i), _content(row[columns[0]])

    return Source(text, files, str(table._fingerprint))


def _content(value: dict[str, Any]) -> bytes:
    if value.get("bytes"):
        return bytes(value["bytes"])
    return Path(value["path"]).read_bytes() if value.get("path") else b""
