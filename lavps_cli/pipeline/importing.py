"""`lavps models import`: weights of other projects become a model folder, known by name."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from lavps_cli.errors import OutputError, UsageError, WeightsError
from lavps_cli.folders import cache_folder
from lavps_cli.weights.checkpoint import is_ours
from lavps_cli.weights.convert import convert_to, is_foreign
from lavps_cli.weights.foreign.parts import joined, pieces_of
from lavps_cli.weights.index import bundled, imports_folder
from lavps_cli.weights.tensors import SUFFIXES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = ("default", "none")
_FILES = {"config.json", "model.safetensors", "README.md"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """What became of weights."""

    name: str
    path: str


def import_model(
    source: str,
    *,
    name: str | None = None,
    output: str | None = None,
    licence: str | None = None,
    force: bool = False,
) -> Import:
    """Convert weights once, and keep them.

    Args:
        source: A file, one of its pieces or the folder of these, or a folder.
        name: What it is called from now on; the file's name if not said.
        output: A folder to write, in the place of where imported models are kept.
        licence: Of the weights, which files of other projects do not tell.
        force: Replace what was there.

    Raises:
        WeightsError: They cannot be read.
        UsageError: The name cannot be used, or the source is a model folder of lavps.
        OutputError: The folder is there already, or cannot be written.
    """
    path = Path(source)
    if is_ours(path):
        raise UsageError(
            f"{source} is a model folder of lavps already.", f"Use it as it is:  --model {source}"
        )
    pieces = pieces_of(path)
    if not pieces and not is_foreign(path):
        if not path.exists():
            raise WeightsError(f"{source}: there is no such file.", "Check the path.")
        raise WeightsError(
            f"{source} holds weights of no kind that is known.",
            "Files end in .safetensors, .pt, .pth, .ckpt or .bin.",
        )
    named = name if name is not None else _stem(pieces[0].name if pieces else path.name)
    if not _NAME.fullmatch(named):
        raise UsageError(
            f"{named!r} is no name for a model.",
            "Letters, digits, points, dashes:  --name my-prior",
        )
    if output is None and named in (*bundled(), *_TAKEN):
        raise UsageError(
            f"{named} is the name of a bundled model.", "Choose another:  --name my-prior"
        )
    folder = imports_folder() / named if output is None else Path(output)
    if folder.exists():
        _check_replaceable(folder, force)
    if pieces:
        with joined(pieces, cache_folder("joined")) as whole:
            _converted(whole, folder, licence)
    else:
        _converted(path, folder, licence)
    return Import(name=named, path=str(folder))


def _check_replaceable(folder: Path, force: bool) -> None:
    """Check that a folder may go: it was asked for, and a model is all that is in it."""
    if not force:
        raise OutputError(
            f"{folder} is there already.", "Replace it:  --force   or choose another --name"
        )
    if not folder.is_dir() or {each.name for each in folder.iterdir()} - _FILES:
        raise OutputError(
            f"{folder} holds more than a model, and is left alone.", "Choose another:  -o DIR"
        )


def _stem(name: str) -> str:
    """Return a file's name without what tells its type, and which piece it is."""
    whole = name.partition(".part")[0]
    stem, dot, suffix = whole.rpartition(".")
    return stem if dot and f".{suffix}" in SUFFIXES else whole


def _converted(path: Path, folder: Path, licence: str | None) -> None:
    """Convert to a folder beside, then put it in the place of what was there."""
    fresh = folder.with_name(f".{folder.name}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        convert_to(path, fresh, licence)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old")
            folder.rename(old)
            fresh.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}.", "Choose:  -o DIR"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
