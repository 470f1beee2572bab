"""Files that were published in pieces (`NAME.part-*`, with SHA256SUMS beside them)."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lavps_cli.errors import OutputError, WeightsError

SUMS = "SHA256SUMS"
_PIECE = re.compile(r"(?P<whole>.+)\.part-?(?P<number>[0-9A-Za-z]+)")
_BLOCK = 1 << 20


def pieces_of(path: Path) -> list[Path]:
    """Return the pieces that a path stands for: a piece, the whole's name, or a folder of one.

    Raises:
        WeightsError: A folder holds the pieces of several files.
    """
    if path.is_dir():
        wholes = {m["whole"] for each in path.iterdir() if (m := _PIECE.fullmatch(each.name))}
        if len(wholes) > 1:
            raise WeightsError(
                f"{path} holds pieces of several files: {', '.join(sorted(wholes))}.",
                f"Name one of them:  {path / min(wholes)}",
            )
        return _pieces(path, wholes.pop()) if wholes else []
    match = _PIECE.fullmatch(path.name)
    if match is not None:
        return _pieces(path.parent, match["whole"])
    return [] if path.exists() else _pieces(path.parent, path.name)


def _pieces(folder: Path, whole: str) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [
        each
        for each in folder.iterdir()
        if (match := _PIECE.fullmatch(each.name)) and match["whole"] == whole
    ]
    return sorted(found, key=lambda each: (len(each.name), each.name))


@contextmanager
def joined(pieces: list[Path], room: Path) -> Iterator[Path]:
    """Give the whole file, below the folder `room`, for as long as it is needed.

    Sums in SHA256SUMS beside the pieces, of pieces or of the whole, have to be right.

    Raises:
        WeightsError: A piece is missing or damaged.
        OutputError: There is no room.
    """
    match = _PIECE.fullmatch(pieces[0].name)
    assert match is not None
    folder, name = pieces[0].parent, match["whole"]
    sums = _sums(folder / SUMS)
    expected = {n for n in sums if (m := _PIECE.fullmatch(n)) and m["whole"] == name}
    missing = sorted(expected - {piece.name for piece in pieces})
    if missing:
        raise WeightsError(
            f"{folder}: pieces are missing: {', '.join(missing)}.", "Download them, too."
        )
    with ExitStack() as stack:
        try:
            room.mkdir(parents=True, exist_ok=True)
            whole = Path(stack.enter_context(TemporaryDirectory(dir=room))) / name
            _join(pieces, whole, sums)
        except OSError as error:
            raise OutputError(
                f"the pieces of {name} cannot be joined: {error.strerror or error}.",
                "Free the disk, or set XDG_CACHE_HOME.",
            ) from error
        yield whole


def _join(pieces: list[Path], whole: Path, sums: dict[str, str]) -> None:
    digest = hashlib.sha256()
    with whole.open("wb") as file:
        for piece in pieces:
            own = hashlib.sha256()
            with piece.open("rb") as opened:
                while block := opened.read(_BLOCK):
                    own.update(block)
                    digest.update(block)
                    file.write(block)
            _check(piece, own.hexdigest(), sums)
    _check(whole, digest.hexdigest(), sums)


def _sums(path: Path) -> dict[str, str]:
    """Return the sums of a file of sums, by name."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = [line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2]
    return {name.strip().lstrip("*"): digest.lower() for digest, name in entries}


def _check(path: Path, digest: str, sums: dict[str, str]) -> None:
    if sums.get(path.name, digest) != digest:
        raise WeightsError(
            f"{path.name} is damaged: its sum is not that of {SUMS}.", "Download it again."
        )
