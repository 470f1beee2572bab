"""Pictures of more than 8 bits per channel, which Pillow would cut: the extra `deep`."""

import io
import logging
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from lavps_cli.images.picture import Values

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_PREMULTIPLIED = 1
_MOST_SAMPLES = 8


class UnsupportedError(ValueError):
    """A deep picture of a kind that is not read here."""


def is_installed() -> bool:
    """Return whether the extra `deep` is there."""
    return all(find_spec(name) is not None for name in ("imagecodecs", "tifffile"))


def bits_of(file: PillowImage.Image, content: bytes) -> int:
    """Return the bits per channel that an opened file has, whatever Pillow makes of them.

    Args:
        file: Opened, not decoded.
        content: The whole file.
    """
    if file.format == "TIFF":
        return int(max(getattr(file, "tag_v2", {}).get(258, (8,))))
    if file.format == "AVIF":
        return _avif_bits(content)
    if file.format == "HEIF":
        return int(file.info.get("bit_depth", 8))
    if file.format == "JPEG2000":
        return _jpeg2000_bits(content)
    if file.mode == "F":
        return 32
    for tile in getattr(file, "tile", []):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any("16" in each for each in arguments if isinstance(each, str)):
            return 16
        if file.format == "PPM" and any(isinstance(n, int) and n > 255 for n in arguments):
            return 16
    return 16 if file.mode.startswith("I") else 8


def _avif_bits(content: bytes) -> int:
    at = content.find(b"av1C")
    flags = content[at + 6] if 0 <= at < len(content) - 6 else 0
    return 8 + 2 * bool(flags & 0x40) + 2 * bool(flags & 0x20)


def _jpeg2000_bits(content: bytes) -> int:
    at = content.find(b"\xff\x4f\xff\x51")
    return (content[at + 42] & 0x7F) + 1 if 0 <= at < len(content) - 42 else 8


def decode(content: bytes, kind: str, bits: int, page: int, max_pixels: int) -> tuple[Values, bool]:
    """Return the values of a file, (h, w, c), uint16 or float32, and whether the last is alpha.

    Args:
        content: The whole file.
        kind: Pillow's name of the format: PNG, TIFF, AVIF or HEIF.
        bits: Bits per channel, which become 16.
        page: Of a TIFF, from 0.
        max_pixels: The most that are decoded of a TIFF; of others, Pillow knows the size.

    Raises:
        UnsupportedError: Channels and units are not those of a picture.
    """
    if kind == "TIFF":
        return decode_tiff(content, page, max_pixels)
    if kind == "HEIF":
        values = _heif(content)
    else:
        import imagecodecs

        decode = imagecodecs.png_decode if kind == "PNG" else imagecodecs.avif_decode
        values = _cube(np.asarray(decode(content)))
        if kind == "AVIF" and values.dtype == np.uint16:
            values = _widened(values, bits)
    return values, values.shape[2] in (2, 4)


def _heif(content: bytes) -> Values:
    import pillow_heif

    return _cube(np.asarray(pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)))


def _cube(values: Any) -> Values:
    """Return channels last, even if there is one."""
    values = values[:, :, None] if values.ndim == 2 else values
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4:
        raise UnsupportedError(f"an array of shape {values.shape} is no picture")
    return np.asarray(values)


def _widened(values: Values, bits: int) -> Values:
    top = 2**bits - 1
    return ((values.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def decode_tiff(content: bytes, number: int, max_pixels: int) -> tuple[Values, bool]:
    """Return the same of a TIFF, also of one that Pillow does not open.

    Args:
        content: The whole file.
        number: Of the page, from 0.
        max_pixels: The most that are decoded.

    Raises:
        UnsupportedError: It is too large, or channels and units are not those of a picture.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # What is wrong, errors tell.
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[number]
        assert isinstance(page, tifffile.TiffPage)
        if page.imagewidth * page.imagelength > max_pixels or page.samplesperpixel > _MOST_SAMPLES:
            raise UnsupportedError("it is too large")
        photometric = int(page.photometric)
        if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            raise UnsupportedError("its colours are neither grey nor RGB")
        if page.axes not in ("YX", "YXS", "SYX"):
            raise UnsupportedError(f"its axes are {page.axes}")
        values, bits = page.asarray(), int(page.bitspersample)
        if page.axes == "SYX":
            values = np.moveaxis(values, 0, -1)
        extra = [int(kind) for kind in page.extrasamples]
    values = _cube(values)
    colours = 3 if photometric == _RGB else 1
    values, transparent = values[:, :, : colours + 1], values.shape[2] > colours
    if values.dtype in (np.float16, np.float64):
        values = values.astype(np.float32)
    if values.dtype not in (np.uint8, np.uint16, np.float32):
        raise UnsupportedError(f"its values are {values.dtype}")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.uint16 and bits < 16:
        values = _widened(values, bits)
    top = 1 if values.dtype == np.float32 else np.iinfo(values.dtype).max
    if photometric == _WHITE_IS_ZERO:
        values = (top - values).astype(values.dtype)
    if transparent and extra[:1] == [_PREMULTIPLIED]:
        values = _divided(values, top)
    return values, transparent


def _divided(values: Values, top: int) -> Values:
    """Return colours without the opacity multiplied into them."""
    alpha = values[:, :, -1:].astype(np.float64)
    colours = values[:, :, :-1] / np.maximum(alpha / top, 1 / top)
    if top > 1:
        colours = np.rint(colours).clip(0, top)
    return np.concatenate([colours.astype(values.dtype), values[:, :, -1:]], axis=2)
