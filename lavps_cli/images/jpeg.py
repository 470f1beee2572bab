"""What a JPEG file holds: its tables, and the coefficients that were rounded."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import JpegImagePlugin
from scipy.fft import dctn
from scipy.linalg import solveh_banded

from lavps_cli.errors import DataError
from lavps_cli.images.opening import opened

SIDE = 8
_SAMPLINGS = {(1, 1), (1, 2), (2, 2)}
Levels = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Compression:
    """Coefficients of blocks of 8 x 8 pixels, as whole numbers of steps."""

    steps: Levels
    """(k, 8, 8): of luma and of the two colours, or of luma alone; row and column are the vertical
    and horizontal frequency."""
    sampling: tuple[int, int]
    """Pixels, down and to the right, that share a value of colour."""
    counts: tuple[Levels, ...]
    """(rows of blocks, columns of blocks, 8, 8) of each component, the blocks that lie beyond the
    picture's border too."""


def compression_of(content: bytes, name: str) -> Compression:
    """Return the coefficients of a JPEG file.

    Decoders do not give them; they are found again from the decoded luma and colour, which differ
    from the stored ones by less than half a step unless a step is one level.

    Raises:
        DataError: The file has other colours, or blocks that are not known here.
    """
    with opened(content, name):
        return _decoded(_opened(content, name), name)


def compression(planes: Levels, steps: Levels, sampling: tuple[int, int]) -> Compression:
    """Return the coefficients of a decoded picture.

    Args:
        planes: (h, w, k) luma and colours in levels from 0 to 255, the colours enlarged as decoders
            do it.
        steps: (k, 8, 8).
        sampling: Pixels, down and to the right, that share a value of colour.
    """
    height, width, _ = planes.shape
    groups = [-(-n // (SIDE * s)) for n, s in zip((height, width), sampling, strict=True)]
    counts = []
    for k, table in enumerate(steps):
        plane, share = planes[:, :, k], sampling if k else (1, 1)
        plane = _reduced(_reduced(plane, share[0]).T, share[1]).T
        rows, columns = (SIDE * n * s // r for n, s, r in zip(groups, sampling, share, strict=True))
        missing = ((0, rows - plane.shape[0]), (0, columns - plane.shape[1]))
        blocks = np.pad(plane - 128, missing, mode="edge").reshape(
            rows // SIDE, SIDE, columns // SIDE, SIDE
        )
        found = dctn(blocks, axes=(1, 3), norm="ortho").transpose(0, 2, 1, 3)
        counts.append(np.rint(found / table))
    return Compression(steps, sampling, tuple(counts))


def tables_of(quality: int) -> tuple[Levels, tuple[int, int]]:
    """Return the steps, (3, 8, 8), and the sampling that the usual encoder takes at a quality."""
    grey = PillowImage.new("RGB", (16, 16), (128, 128, 128))
    return _tables(_opened(encoded(grey, quality), "")), (2, 2)


def encoded(picture: PillowImage.Image, quality: int) -> bytes:
    """Return the JPEG file of a picture, its colours halved in both directions."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def _decoded(file: JpegImagePlugin.JpegImageFile, name: str) -> Compression:
    layers = file.layer
    if len(layers) not in (1, 3):
        raise DataError(
            f"{name} is a JPEG of {len(layers)} inks; only grey and RGB ones are undone.",
            "Convert it, or restore it with:  --task denoise",
        )
    down, right = layers[0][2] // layers[-1][2], layers[0][1] // layers[-1][1]
    alike = layers[1:2] == [] or layers[1][1:3] == layers[2][1:3]
    if (down, right) not in _SAMPLINGS or not alike:
        raise DataError(
            f"{name} stores its colours in a way that is not undone here ({right}x{down}).",
            "Restore it with:  --task denoise",
        )
    file.draft("L" if len(layers) == 1 else "YCbCr", None)
    if file.mode not in ("L", "YCbCr"):
        raise DataError(
            f"{name} is a JPEG without luma (mode {file.mode}).",
            "Restore it with:  --task denoise",
        )
    planes = np.atleast_3d(np.asarray(file, dtype=np.float64))
    steps = _tables(file)
    if (steps < 1).any():
        raise DataError(f"{name} is damaged: a step of its tables is zero.", "Get the file again.")
    return compression(planes, steps, (down, right))


def _tables(file: JpegImagePlugin.JpegImageFile) -> Levels:
    """Return the steps of each component, (k, 8, 8)."""
    tables = [np.array(file.quantization[layer[3]], np.float64) for layer in file.layer]
    return np.stack(tables).reshape(-1, SIDE, SIDE)


def _opened(content: bytes, name: str) -> JpegImagePlugin.JpegImageFile:
    file = PillowImage.open(io.BytesIO(content), formats=["JPEG"])
    if not isinstance(file, JpegImagePlugin.JpegImageFile):
        raise DataError(f"{name} is not a JPEG.", "Say its quality:  --jpeg-quality 75")
    return file


def _reduced(plane: Levels, share: int) -> Levels:
    """Return the rows that a decoder has enlarged to those of `plane`.

    It does so by weights 3/4 of the nearest and 1/4 of the next row (libjpeg's triangle filter);
    least squares undo it.
    """
    height = plane.shape[0]
    if share == 1:
        return plane
    n = -(-height // 2)
    if n == 1:
        return plane.mean(0, keepdims=True)
    nearest = np.arange(height) // 2
    side = np.where(np.arange(height) % 2 == 0, nearest - 1, nearest + 1).clip(0, n - 1)
    right, diagonal, beside = np.zeros((n, plane.shape[1])), np.zeros(n), np.zeros(n)
    for index, weight in ((nearest, 0.75), (side, 0.25)):
        np.add.at(right, index, weight * plane)
    same = nearest == side
    np.add.at(diagonal, nearest, np.where(same, 1.0, 0.75**2))
    np.add.at(diagonal, side, np.where(same, 0.0, 0.25**2))
    np.add.at(beside, np.maximum(nearest, side), np.where(same, 0.0, 0.75 * 0.25))
    found: Levels = solveh_banded(np.stack([beside, diagonal]), right)
    return found
