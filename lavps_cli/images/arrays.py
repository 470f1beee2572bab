"""Observations as arrays: `.npy` files of floats in [-1, 1], which nothing rounds or clips."""

import io

import numpy as np
import torch

from lavps_cli.core.types import Image
from lavps_cli.errors import DataError
from lavps_cli.images.opening import check_size
from lavps_cli.images.picture import Values, from_levels

_FURTHEST = 16.0
_SCALE = "Floats are on the scale from -1 (black) to 1 (white)."


def read_array(content: bytes, name: str, max_pixels: int) -> Image:
    """Return the picture of a `.npy` file: (h, w), or with 1 or 3 channels first or last.

    Floats are in [-1, 1] and may lie beyond it, as noise makes them; whole numbers of 8 or 16 bits
    are levels from black to white.

    Raises:
        DataError: It is no such array.
        ValueError: The file is damaged.
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    shape, fortran, dtype = (read or np.lib.format.read_array_header_2_0)(stream)
    start = stream.tell()
    last = len(shape) == 3 and shape[2] in (1, 3)
    if not (len(shape) == 2 or last or (len(shape) == 3 and shape[0] in (1, 3))) or 0 in shape:
        raise DataError(
            f"{name} has the shape {shape}.", "Expected is (h, w), (h, w, 3) or (3, h, w)."
        )
    height, width = shape[:2] if last or len(shape) == 2 else shape[1:]
    check_size((width, height), name, max_pixels)
    if dtype.kind != "f" and dtype not in (np.uint8, np.dtype("<u2"), np.dtype(">u2")):
        raise DataError(f"{name} holds {dtype}.", f"Expected are floats, uint8 or uint16. {_SCALE}")
    if len(content) - start != dtype.itemsize * int(np.prod(shape)):
        raise ValueError("it ends early or late")
    flat = np.frombuffer(content, dtype, offset=start)
    values = flat.reshape(shape, order="F" if fortran else "C")
    values = values[:, :, None] if values.ndim == 2 else values
    values = values if last or len(shape) == 2 else np.moveaxis(values, 0, -1)
    if dtype.kind != "f":
        return from_levels(np.ascontiguousarray(values.astype(dtype.newbyteorder("="))))
    return check_floats(from_levels((values.astype(np.float32) + 1) / 2), name, _SCALE)


def write_array(values: Values) -> bytes:
    """Return a `.npy` file of float32 in [-1, 1], (h, w) or (h, w, 3), from values in [0, 1]."""
    stream = io.BytesIO()
    np.save(stream, (values[:, :, 0] if values.shape[2] == 1 else values) * 2 - 1)
    return stream.getvalue()


def check_floats(x: Image, name: str, scale: str) -> Image:
    """Return the picture if its values can be meant.

    Raises:
        DataError: Some are no numbers, or far from the scale.
    """
    if not bool(torch.isfinite(x).all()):
        raise DataError(
            f"{name} holds values that are no numbers.", "Fill them, and give a --mask."
        )
    if float(x.abs().max()) > _FURTHEST:
        raise DataError(f"{name} holds values far beyond black and white.", scale)
    return x
