"""Weights of other projects become model folders of ours, once."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from lavps_cli.errors import OutputError, WeightsError
from lavps_cli.folders import cache_folder
from lavps_cli.weights.architectures import architecture_of, schedule_of
from lavps_cli.weights.checkpoint import check_size, check_state, write_folder
from lavps_cli.weights.foreign import authors, diffusers, guided_diffusion, k_diffusion
from lavps_cli.weights.hub import name_of
from lavps_cli.weights.tensors import SUFFIXES, Contents, Foreign, read_contents

VERSION = 2
"""Of all conversions; folders converted by another version are not used."""

FILES: tuple[Callable[[Contents], Foreign | None], ...] = (
    k_diffusion.read,
    authors.read,
    guided_diffusion.read,
)
"""Readers of files; each returns None where the file is of another project."""
FOLDERS: tuple[Callable[[Path], Foreign | None], ...] = (diffusers.read,)
"""Readers of folders, likewise."""


def is_foreign(path: Path) -> bool:
    """Return whether weights of another project may lie there."""
    if path.is_dir():
        return (path / "model_index.json").is_file() or (path / "config.json").is_file()
    return path.is_file() and path.suffix in SUFFIXES


def convert(path: Path) -> Foreign:
    """Return a file's or folder's model in our terms, complete and of the right shapes.

    Raises:
        WeightsError: It is damaged, or of no project that is known.
    """
    contents = None if path.is_dir() else read_contents(path)
    found = (
        (read(path) for read in FOLDERS) if contents is None else (read(contents) for read in FILES)
    )
    foreign = next((each for each in found if each is not None), None)
    if foreign is None:
        raise WeightsError(
            f"{path} holds weights of no kind that is known.",
            "Known: folders of lavps and of diffusers; files of k-diffusion, of the authors of "
            "LAVPS, of guided-diffusion.",
        )
    schedule_of(foreign.config)
    check_size(foreign.config, path)
    with torch.device("meta"):
        network = architecture_of(foreign.config).build(foreign.config["model"])
    check_state(network.state_dict(), foreign.state, path)
    return foreign


def convert_to(path: Path, folder: Path, licence: str | None = None) -> None:
    """Write the model of another project as a model folder, which appears whole or not at all.

    Raises:
        WeightsError: It cannot be converted.
        OutputError: The folder is there already, or cannot be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} is there already.", "Choose another place:  -o DIR")
    foreign = convert(path)
    about = foreign.config | {"source": path.name}
    if licence is not None:
        about |= {"licence": licence}
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        write_folder(part, about, foreign.state)
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # Else another process was quicker.
            raise OutputError(f"{folder} cannot be written: {error}", "Free the disk.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def converted(path: Path) -> Path:
    """Return the model folder, in the cache, of another project's file or folder.

    Raises:
        WeightsError: It cannot be converted.
    """
    try:
        folder = cache_folder("converted") / _key(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from error
    if not folder.is_dir():
        convert_to(path, folder)
    return folder


def _key(path: Path) -> str:
    """Return a name that stands for the contents, and can be read."""
    digest = hashlib.sha256(str(VERSION).encode())
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            digest.update(f"\0{file.relative_to(path)}\0".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    stem = name_of(path).replace("/", "--") if path.is_dir() else path.stem
    return f"{stem}-{digest.hexdigest()[:16]}"
