"""Checkpoints of a training run: folders that appear whole, the newest ones kept."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lavps_cli.errors import OutputError, WeightsError

STATE = "state.pt"
LATEST = "latest"


def save(run: Path, step: int, state: dict[str, Any], export: Callable[[Path], None]) -> Path:
    """Write `checkpoints/step_N` and point `latest` at it; return the folder.

    Killed at any moment, this leaves the earlier checkpoints and `latest` as they were.

    Args:
        run: Folder of the run.
        step: N.
        state: Tensors, numbers and texts, in lists and dictionaries.
        export: Writes a model folder, which the checkpoint is at the same time.

    Raises:
        OutputError: It cannot be written; what was half written is removed.
    """
    folder = run / "checkpoints" / f"step_{step:08d}"
    part = folder.with_name(f".{folder.name}.part")
    try:
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            export(part)
            stream = BytesIO()
            torch.save(state, stream)
            (part / STATE).write_bytes(stream.getbuffer())
            for path in part.iterdir():
                _flush(path)
            shutil.rmtree(folder, ignore_errors=True)
            part.replace(folder)
            _flush(folder.parent)
            _point(run / LATEST, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}.",
            "Make room, then give the same command again: the run goes on.",
        ) from error
    return folder


def prune(run: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints."""
    for folder in checkpoints(run)[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step_*"))


def load_newest(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the state of the newest checkpoint that can be read, and what was wrong with others.

    Raises:
        WeightsError: There are checkpoints, and none can be read.
    """
    wrong: list[str] = []
    found = checkpoints(run)
    for folder in reversed(found):
        try:
            return load(folder / STATE), wrong
        except WeightsError as error:
            wrong.append(error.message)
    if found:
        raise WeightsError(
            f"no checkpoint of {run} can be read. {wrong[0]}",
            "Start anew:  --resume never --output ANOTHER_FOLDER",
        )
    return None, wrong


def load(path: Path) -> dict[str, Any]:
    """Return a saved state: tensors and plain values, nothing else is unpickled.

    Raises:
        WeightsError: It cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read: {type(error).__name__}.") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is not the state of a training run.")
    return state


def _flush(path: Path) -> None:
    """Have a file, or the entries of a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # Some file systems cannot flush folders.
            os.fsync(handle)
    finally:
        os.close(handle)


def _point(link: Path, folder: Path) -> None:
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(folder.relative_to(link.parent), target_is_directory=True)
    part.replace(link)
