"""Pictures to files: whole or not at all."""

import hashlib
import io
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from lavps_cli.errors import OutputError, UsageError
from lavps_cli.images.arrays import write_array
from lavps_cli.images.metadata import png_text, save_options, unwritten
from lavps_cli.images.picture import (
    FORMATS,
    Metadata,
    Picture,
    Plane,
    Values,
    is_writable,
    to_levels,
)
from lavps_cli.images.png import encode_deep_png
from lavps_cli.images.tiff import encode_tiff
from lavps_cli.storage.places import Place
from lavps_cli.storage.remote import Remote

_LONGEST = 240
"""Bytes of a name that still has room for `.` and `.part`."""


def format_of(path: Place) -> str:
    """Return the format that a file name asks for.

    Raises:
        UsageError: It asks for none that is written here.
    """
    for name, entry in FORMATS.items():
        if path.suffix.lower() in entry.suffixes:
            return name
    raise UsageError(
        f"{path}: no picture format is called {path.suffix or 'that'!r}.",
        f"End the name in one of: {', '.join(e.suffixes[0] for e in FORMATS.values())}",
    )


def check_format(format_name: str, *, alpha: bool, depth: int = 8) -> None:
    """Check that a format can be written, with transparency and depth where there are some.

    Raises:
        OutputError: It cannot.
    """
    entry = FORMATS[format_name]
    if not is_writable(format_name):
        raise OutputError(f"this Pillow cannot write {format_name}.", "Choose:  --format png")
    if alpha and not entry.alpha:
        raise OutputError(
            f"{format_name} cannot hold transparency.",
            "Choose:  --format png   or webp        Do without:  --alpha drop",
        )
    if depth not in entry.depths:
        raise OutputError(
            f"{format_name} holds {' or '.join(map(str, entry.depths))} bits per channel here.",
            "Choose:  --format png   or tiff",
        )


def encode(
    picture: Picture, format_name: str, quality: int = 95, text: Mapping[str, str] | None = None
) -> bytes:
    """Return the file of a picture, with its depth and metadata; `text` goes into PNG only.

    Raises:
        OutputError: The format cannot hold it.
    """
    transparent = picture.alpha is not None
    check_format(format_name, alpha=transparent, depth=picture.depth)
    values = to_levels(picture.pixels, picture.depth)
    if picture.alpha is not None:
        values = np.concatenate([values, to_levels(picture.alpha * 2 - 1, picture.depth)], axis=2)
    try:
        if format_name == "npy":
            return write_array(values)
        if format_name == "tiff":
            return encode_tiff(values, picture.metadata, alpha=transparent)
        options = save_options(picture.metadata, format_name)
        if format_name == "png":
            chunks = png_text(picture.metadata, dict(text or {}))
            if picture.depth > 8:
                return encode_deep_png(values, chunks, options)
            options["pnginfo"] = chunks
        if format_name in ("jpg", "webp", "avif"):
            options["quality"] = quality
        if format_name in ("jpg", "avif"):
            grey = format_name == "avif" and picture.grey and picture.alpha is None
            options["subsampling"] = "4:0:0" if grey else "4:4:4"
        stream = io.BytesIO()
        _image(values).save(stream, FORMATS[format_name].pillow, **options)
        return stream.getvalue()
    except (OSError, ValueError, RuntimeError, TypeError, struct.error) as error:
        raise OutputError(
            f"the result cannot be written as {format_name}: {error}", "Choose:  --format png"
        ) from error


def _image(values: Values) -> PillowImage.Image:
    """Return 8-bit values, (h, w, c), as an image."""
    if values.shape[2] == 2:
        planes = [np.ascontiguousarray(values[:, :, i]) for i in (0, 1)]
        return PillowImage.merge("LA", [PillowImage.fromarray(plane) for plane in planes])
    return PillowImage.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)


def with_writable_metadata(picture: Picture, format_name: str) -> Picture:
    """Return the picture with what a file of that format can say about it.

    Tried on a single pixel, part by part: better before the work than after it.
    """
    metadata = replace(picture.metadata, partial=unwritten(picture.metadata, format_name))
    if format_name == "npy":
        return replace(picture, metadata=Metadata(partial=metadata.partial), stored=None)
    for part in ("exif", "xmp", "text", "icc"):
        only = Metadata(**{part: getattr(metadata, part)})
        pixel = Picture(torch.zeros(1, picture.pixels.shape[1], 1, 1), metadata=only)
        try:
            encode(pixel, format_name)
        except OutputError:
            metadata = replace(metadata, partial=True, **{part: getattr(Metadata(), part)})
    return replace(picture, metadata=metadata, stored=picture.stored if metadata.icc else None)


def encode_deep(values: Plane) -> bytes:
    """Return a grey PNG of 16 bits; `values` are in [0, 1]."""
    levels = (values.cpu().double() * 65535).round().clamp(0, 65535).numpy().astype(np.uint16)
    stream = io.BytesIO()
    PillowImage.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def check_name(path: Place) -> None:
    """Check that the system knows such names at all.

    Raises:
        OutputError: It does not.
    """
    if isinstance(path, Remote):
        return  # Its name was checked when it was made.
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # `check_target` tells.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"no file can be called {path}: {reason}.", "Choose:  -o NAME") from error


def check_target(path: Place) -> None:
    """Check, before the work, that a file can be written; of a store, writing tells.

    Raises:
        OutputError: It cannot.
    """
    if isinstance(path, Remote):
        return
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", f"Write into it:  -o {path}/")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: there is no such folder.", f"Make it:  mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} may not be written to.", "Choose another place:  -o DIR/")


def _part_of(path: Path) -> Path:
    """Return the name of an unfinished file; long names leave no room for more letters."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return path.with_name(f".{name}.part")


def write_atomic(path: Place, content: bytes) -> None:
    """Write a file whole or not at all, on a disk through `.{name}.part` beside it.

    Raises:
        OutputError: It cannot be written.
    """
    write_all({path: content})


def write_all(
    files: Mapping[Place, bytes],
    ready: Callable[[Mapping[Place, Path | bytes]], None] | None = None,
) -> None:
    """Write files, each whole before any of them gets its name.

    Objects of a store are whole when they have a name: they come last, one after the other.

    Args:
        files: Their contents.
        ready: Called before the names are given, with where each file is until then, or the content
            of an object; what it raises leaves everything as it was.

    Raises:
        OutputError: One cannot be written.
    """
    parts = {path: _part_of(path) for path in files if isinstance(path, Path)}
    objects = {path: content for path, content in files.items() if isinstance(path, Remote)}
    path: Place | None = None
    try:
        try:
            for path, part in parts.items():
                part.write_bytes(files[path])
                _keep(part)
            if ready is not None:
                ready({p: parts[p] if isinstance(p, Path) else c for p, c in files.items()})
            for path, part in parts.items():
                part.replace(path)
            for path, content in objects.items():
                path.write_bytes(content)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Place | None, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written: {reason}.", "Choose:  -o DIR/")


def _keep(path: Path) -> None:
    """Have the disk keep what is written, so that no name outlives its content."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
