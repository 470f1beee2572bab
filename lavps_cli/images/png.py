"""PNG files of 16 bits per channel, which Pillow writes in grey only."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import PngImagePlugin

from lavps_cli.images.picture import Values

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_BAND = 64
_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def encode_deep_png(
    values: Values, text: PngImagePlugin.PngInfo, options: dict[str, object]
) -> bytes:
    """Return a PNG of 16 bits per channel (ISO/IEC 15948).

    Args:
        values: uint16, (h, w, c): grey, grey and alpha, colour, or colour and alpha.
        text: Its text chunks.
        options: Its other metadata, as for Pillow's `save`.
    """
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *_about(text, options)]
    parts += [_chunk(b"IDAT", _compressed(values)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _about(text: PngImagePlugin.PngInfo, options: dict[str, object]) -> list[bytes]:
    """Return the chunks that Pillow writes about a picture of one pixel."""
    stream = io.BytesIO()
    PillowImage.new("RGB", (1, 1)).save(stream, "PNG", pnginfo=text, **options)
    content, at, chunks = stream.getvalue(), len(_SIGNATURE), []
    while at < len(content):
        end = at + 12 + struct.unpack_from(">I", content, at)[0]
        if content[at + 4 : at + 8] not in _PIXELS:
            chunks.append(content[at:end])
        at = end
    return chunks


def _compressed(values: Values) -> bytes:
    """Return the filtered rows, compressed, a band at a time: a photograph is large."""
    height, width, channels = values.shape
    step = 2 * channels
    packer, parts = zlib.compressobj(6), []
    above = np.zeros((1, width * step), np.uint8)
    for top in range(0, height, _BAND):
        band = np.ascontiguousarray(values[top : top + _BAND].astype(">u2"))
        rows = band.view(np.uint8).reshape(-1, width * step)
        parts.append(packer.compress(_filtered(rows, np.concatenate([above, rows[:-1]]), step)))
        above = rows[-1:]
    return b"".join([*parts, packer.flush()])


def _filtered(rows: npt.NDArray[np.uint8], up: npt.NDArray[np.uint8], step: int) -> bytes:
    """Return rows, each by the filter that leaves the smallest values: Sub, Up or Paeth."""
    left, corner = (np.pad(each, ((0, 0), (step, 0)))[:, :-step] for each in (rows, up))
    filters = {1: rows - left, 2: rows - up, 4: rows - _paeth(left, up, corner)}
    costs = [np.abs(each.view(np.int8).astype(np.int16)).sum(1) for each in filters.values()]
    best = np.argmin(costs, axis=0)
    kinds = np.array(list(filters), np.uint8)[best][:, None]
    chosen = np.choose(best[:, None], list(filters.values()))
    return np.concatenate([kinds, chosen], axis=1).tobytes()


def _paeth(
    left: npt.NDArray[np.uint8], up: npt.NDArray[np.uint8], corner: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    a, b, c = (each.astype(np.int16) for each in (left, up, corner))
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    nearest_b = np.where(to_b <= to_c, up, corner)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, nearest_b)
