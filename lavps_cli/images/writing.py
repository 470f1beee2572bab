"""Pictures to files: whole or not at all."""

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, PngImagePlugin
from PIL import Image as PillowImage

from lavps_cli.errors import OutputError, UsageError
from lavps_cli.images.picture import FORMATS, Metadata, Picture, Plane, is_writable, to_bytes


def format_of(path: Path) -> str:
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


def check_format(format_name: str, *, alpha: bool) -> None:
    """Check that a format can be written, with transparency where there is some.

    Raises:
        OutputError: It cannot.
    """
    if not is_writable(format_name):
        raise OutputError(f"this Pillow cannot write {format_name}.", "Choose:  --format png")
    if alpha and not FORMATS[format_name].alpha:
        raise OutputError(
            f"{format_name} cannot hold transparency.", "Choose:  --format png   or webp"
        )


def encode(
    picture: Picture, format_name: str, quality: int = 95, text: Mapping[str, str] | None = None
) -> bytes:
    """Return the file of a picture, with its metadata; `text` goes into PNG only.

    Raises:
        OutputError: The format cannot hold it.
    """
    entry = FORMATS[format_name]
    check_format(format_name, alpha=picture.alpha is not None)
    planes = to_bytes(picture.pixels)
    if picture.alpha is not None:
        planes = np.concatenate([planes, to_bytes(picture.alpha * 2 - 1)], axis=2)
    image = PillowImage.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)
    if planes.shape[2] == 2:
        image = PillowImage.merge(
            "LA", [PillowImage.fromarray(np.ascontiguousarray(planes[:, :, i])) for i in (0, 1)]
        )
    options = _save_options(picture.metadata, format_name, quality)
    if format_name == "png" and text:
        chunks = PngImagePlugin.PngInfo()
        for key, value in text.items():
            chunks.add_text(key, value)
        options["pnginfo"] = chunks
    stream = io.BytesIO()
    try:
        image.save(stream, entry.pillow, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(
            f"the result cannot be written as {format_name}: {error}", "Choose:  --format png"
        ) from error
    return stream.getvalue()


def _save_options(metadata: Metadata, format_name: str, quality: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = _flat(metadata.exif) if format_name == "tiff" else metadata.exif
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.dpi and format_name in ("png", "jpg", "tiff"):
        options["dpi"] = metadata.dpi
    if format_name in ("jpg", "webp", "avif"):
        options["quality"] = quality
    if format_name in ("jpg", "avif"):
        options["subsampling"] = "4:4:4"
    if format_name == "tiff":
        options["compression"] = "tiff_adobe_deflate"
    return options


def _flat(exif: bytes) -> bytes:
    """Return an EXIF block without its inner directories, which Pillow cannot write in TIFF."""
    tags = PillowImage.Exif()
    tags.load(exif)
    for pointer in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if pointer in tags:
            del tags[pointer]
    return tags.tobytes()


def with_writable_metadata(picture: Picture, format_name: str) -> Picture:
    """Return the picture with what a file of that format can say about it.

    Tried on a single pixel: better before the work than after it.
    """
    try:
        encode(Picture(torch.zeros(1, 3, 1, 1), metadata=picture.metadata), format_name)
    except OutputError:
        return replace(picture, metadata=Metadata(partial=True))
    return picture


def encode_deep(values: Plane) -> bytes:
    """Return a grey PNG of 16 bits; `values` are in [0, 1]."""
    levels = (values.cpu().double() * 65535).round().clamp(0, 65535).numpy().astype(np.uint16)
    stream = io.BytesIO()
    PillowImage.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def check_target(path: Path) -> None:
    """Check, before the work, that a file can be written.

    Raises:
        OutputError: It cannot.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", f"Write into it:  -o {path}/")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: there is no such folder.", f"Make it:  mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} may not be written to.", "Choose another place:  -o DIR/")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, through `.{name}.part` beside it.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}.", "Choose:  -o DIR/") from error
