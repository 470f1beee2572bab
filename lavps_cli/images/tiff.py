"""TIFF files of any depth, with inner EXIF: Pillow writes either, or compressed, or colour."""

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import TiffImagePlugin

from lavps_cli.errors import OutputError
from lavps_cli.images.metadata import IFDS
from lavps_cli.images.picture import Metadata, Values

_MOST = 2**32 - 2**20
_UNSIGNED, _FLOAT = 1, 3


def encode_tiff(values: Values, metadata: Metadata, *, alpha: bool) -> bytes:
    """Return a TIFF in one strip, compressed by Deflate.

    Args:
        values: (h, w, c); c is 1 or 3, and one more with `alpha`. Floats are in [0, 1].
        metadata: What it says besides.
        alpha: Whether the last channel is opacity.

    Raises:
        OutputError: It would have more than 4 GiB.
    """
    height, width, channels = values.shape
    whole = values.dtype != np.float32
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    if whole:  # Predictor 2: differences along the rows.
        little = np.diff(little, axis=1, prepend=np.zeros_like(little[:, :1]))
    strip = zlib.compress(np.ascontiguousarray(little).data, 6)
    if len(strip) > _MOST:
        raise OutputError("the result is too large for TIFF.", "Choose:  --format png")
    tags: dict[int, Any] = {
        256: width,
        257: height,
        258: (values.dtype.itemsize * 8,) * channels,
        259: 8,
        262: 2 if channels > 2 else 1,
        277: channels,
        278: height,
        279: len(strip),
        273: 0,
        284: 1,
        317: 2 if whole else 1,
        339: (_UNSIGNED if whole else _FLOAT,) * channels,
    }
    if alpha:
        tags[338] = (2,)  # Not multiplied into the colours.
    return _with_tags(tags | _about(metadata), strip)


def _about(metadata: Metadata) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    if metadata.exif:
        exif = PillowImage.Exif()
        exif.load(metadata.exif)
        tags |= {tag: value for tag, value in exif.items() if tag not in IFDS}
        tags |= {tag: dict(exif.get_ifd(tag)) for tag in IFDS if exif.get_ifd(tag)}
    if metadata.dpi:
        tags |= {282: metadata.dpi[0], 283: metadata.dpi[1], 296: 2}
    if metadata.xmp:
        tags[700] = metadata.xmp
    if metadata.icc:
        tags[34675] = metadata.icc
    return tags


def _with_tags(tags: dict[int, Any], strip: bytes) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        if tag in IFDS:
            directory.tagtype[tag] = 4
        if tag in (273, 279):
            directory.tagtype[tag] = 4
        if tag == 34675:
            directory.tagtype[tag] = 7
        directory[tag] = value
    stream = io.BytesIO()
    directory.save(stream)
    return stream.getvalue() + strip
