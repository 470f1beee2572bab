"""Files to pictures: upright, whole, and refused where something would be lost."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from lavps_cli.errors import DataError
from lavps_cli.images import deep
from lavps_cli.images.arrays import check_floats, read_array
from lavps_cli.images.colour import ProfileError, is_srgb, to_srgb
from lavps_cli.images.metadata import read_metadata
from lavps_cli.images.opening import open_image, opened
from lavps_cli.images.picture import (
    FORMATS,
    MAX_PIXELS,
    Metadata,
    Picture,
    Plane,
    Values,
    from_levels,
    held_depth,
    is_writable,
)
from lavps_cli.storage.places import Place

_DEEP = ("PNG", "TIFF", "AVIF", "HEIF")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_START = b"\x93NUMPY"
_DEPTHS = {1: 8, 2: 16, 4: 32}
_SCALE = "Floats of TIFF are on the scale from 0 (black) to 1 (white)."


@dataclass(frozen=True, eq=False, kw_only=True)
class _File:
    """What a file holds."""

    values: Values
    """(h, w, c), as stored."""
    mode: str
    """What the colours are: L, RGB or CMYK."""
    transparent: bool
    """Whether the last channel is alpha."""
    kind: str
    """Pillow's name of the format."""
    metadata: Metadata = field(default_factory=Metadata)
    orientation: int = 1
    record: str | None = None


def load_picture(
    source: Place | bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
    *,
    page: int | None = None,
    may_cut: bool = False,
) -> Picture:
    """Return the picture of a file, or of its bytes, upright and in sRGB.

    Args:
        source: A path, or the content of a file.
        name: What messages call it.
        max_pixels: The most that are decoded.
        page: Which picture of a file that holds several, from 1; None refuses such files.
        may_cut: Whether deeper channels may be cut to 8 bits where they cannot be read whole.

    Raises:
        DataError: It is not a picture that can be kept whole: damaged, deeper than can be read
            here, of several frames, or too large.
    """
    with opened(source, name) as content:
        if content.startswith(_NPY_START):
            pixels = read_array(content, name, max_pixels)
            return Picture(pixels, format="npy", depth=32)
        try:
            file = _read(content, name, max_pixels, page, may_cut)
        except UnidentifiedImageError:
            # Floats in colour, which Pillow has no mode for.
            if not content.startswith(_TIFF_STARTS) or not deep.is_installed():
                raise
            values, transparent = deep.decode_tiff(content, (page or 1) - 1, max_pixels)
            file = _File(values=values, mode="RGB", transparent=transparent, kind="TIFF")
        picture = _picture(file, name)
        return replace(picture, jpeg=content) if file.kind == "JPEG" else picture


def load_matrix(path: Place, most: int, *, upright: bool = True) -> Plane:
    """Return the grey values of a picture, of any depth, in their own units.

    Transparent pixels count as black.

    Args:
        path: Of the file.
        most: Pixels that are decoded at most.
        upright: Whether its orientation is applied.

    Raises:
        DataError: The file is not such a picture.
    """
    name = str(path)
    with (
        opened(path, name) as content,
        open_image(content, name, MAX_PIXELS, page=1) as file,
    ):
        if file.width * file.height > most:
            raise DataError(
                f"{name} is {file.width}x{file.height}, larger than it can be meant.", "Shrink it."
            )
        file = ImageOps.exif_transpose(file) if upright else file
        if file.mode in ("I;16", "I;16B", "I;16L", "I", "F", "L", "1"):
            values = np.asarray(file)
        else:
            over = file.convert("RGBA")
            black = PillowImage.new("RGBA", over.size, (0, 0, 0, 255))
            values = np.asarray(PillowImage.alpha_composite(black, over).convert("L"))
    return torch.from_numpy(values.astype(np.float64))


def _read(content: bytes, name: str, max_pixels: int, page: int | None, may_cut: bool) -> _File:
    with open_image(content, name, max_pixels, page) as file:
        kind = "JPEG" if file.format == "MPO" else file.format or ""
        bits = deep.bits_of(file, content)  # Before the texts are read, which decodes a PNG.
        metadata, orientation, record = read_metadata(file)
        if bits > 8 and _is_whole(kind, name, bits, may_cut):
            values, transparent = deep.decode(content, kind, bits, (page or 1) - 1, max_pixels)
            if sorted(values.shape[:2]) != sorted(file.size):
                raise ValueError("its parts contradict each other")
            mode = "RGB"
        else:
            mode, values, transparent = _shallow(file)
            if kind == "TIFF":
                orientation = 1  # Pillow has turned it.
            if file.mode == "LAB":
                metadata = replace(metadata, icc=b"")  # Pillow has followed it.
    return _File(
        values=values,
        mode=mode,
        transparent=transparent,
        kind=kind,
        metadata=metadata,
        orientation=orientation,
        record=record,
    )


def _is_whole(kind: str, name: str, bits: int, may_cut: bool) -> bool:
    """Return whether a deep file is read whole; else it may be cut.

    Raises:
        DataError: It can be neither.
    """
    if kind in _DEEP and deep.is_installed():
        return True
    if may_cut:
        return False
    keep = 'Keep them:  pip install "lavps[deep]"' if kind in _DEEP else "Keep them in a PNG."
    raise DataError(
        f"{name} has {bits} bits per channel, and this installation would cut it to 8.",
        f"{keep}      Accept 8 bits:  --bit-depth 8",
    )


def _shallow(file: PillowImage.Image) -> tuple[str, Values, bool]:
    """Return what the colours are, 8-bit values (h, w, c), and whether the last are alpha."""
    if file.mode == "I" and file.format == "TIFF":
        raise deep.UnsupportedError("whole numbers of 32 bits have no white")
    if file.mode.startswith("I") or file.mode == "F":
        # Pillow would clip here.
        levels = np.asarray(file).astype(np.float64) * (255 / (1 if file.mode == "F" else 65535))
        return "L", np.rint(levels).clip(0, 255).astype(np.uint8)[:, :, None], False
    if file.mode == "CMYK":
        return "CMYK", np.array(file), False
    transparent = "A" in file.getbands() or "transparency" in file.info
    grey = file.mode in ("1", "L", "LA", "La") or (file.mode == "P" and _is_grey_palette(file))
    file = file.convert(("LA" if grey else "RGBA") if transparent else ("L" if grey else "RGB"))
    values = np.array(file).reshape(file.height, file.width, -1)
    return "L" if grey else "RGB", values, transparent


def _is_grey_palette(file: PillowImage.Image) -> bool:
    if "transparency" in file.info:
        return False  # Pillow finds transparent colours on the way to RGBA only.
    colours = np.array(file.getpalette("RGB") or [0, 0, 1]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _upright(values: Values, orientation: int) -> Values:
    """Return values, (h, w, c), turned as the EXIF orientation asks (CIPA DC-008, 4.6.5)."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _result_format(kind: str, depth: int) -> str:
    """Return the format that a file's result has if nothing is asked: its own, if that holds it."""
    own = next((name for name, entry in FORMATS.items() if entry.pillow == kind), "png")
    return own if is_writable(own) and held_depth(own, depth) == depth else "png"


def _picture(file: _File, name: str) -> Picture:
    values = _upright(file.values, file.orientation)
    colours = np.ascontiguousarray(values[:, :, :-1]) if file.transparent else values
    alpha = (from_levels(values[:, :, -1:]) + 1) / 2 if file.transparent else None
    mode = "L" if colours.shape[2] == 1 else file.mode
    metadata, notes = file.metadata, []
    if mode == "CMYK":
        notes.append(f"{name} is CMYK; the result is RGB.")
    shown = stored = None
    if metadata.icc and values.dtype != np.float32:
        try:
            if not is_srgb(metadata.icc, mode):
                shown = to_srgb(colours, metadata.icc, mode)
                stored = None if mode == "CMYK" else from_levels(colours)
        except ProfileError as error:
            notes.append(f"the colour profile of {name} is left out: {error}.")
            metadata = replace(metadata, icc=b"", partial=True)
    if shown is None:
        shown = colours
        if mode == "CMYK":
            shown = np.array(PillowImage.fromarray(colours, "CMYK").convert("RGB"))
    if mode == "CMYK":
        metadata = replace(metadata, icc=b"")  # It describes inks that the result does not have.
    pixels = from_levels(shown)
    if values.dtype == np.float32:
        pixels = check_floats(pixels, name, _SCALE)
    depth = _DEPTHS[values.dtype.itemsize]
    return Picture(
        pixels,
        alpha,
        format=_result_format(file.kind, depth),
        depth=depth,
        metadata=metadata,
        record=file.record,
        stored=stored,
        orientation=file.orientation,
        notes=tuple(notes),
    )
