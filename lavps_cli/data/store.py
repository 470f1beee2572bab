"""Pictures decoded once into one file that is mapped into memory, and batches of them.

A run that is restarted so begins at once, several processes share the memory, and data sets may be
larger than it.
"""

import hashlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from lavps_cli.core.types import Image
from lavps_cli.data.sources import Source
from lavps_cli.errors import DataError, OutputError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Crop: TypeAlias = Literal["whole", "random"]

FORMAT = 1
SCALE_STEP = 2**-0.5
MOST_PIXELS = 40_000_000
"""Larger pictures are reduced before they are kept."""
_ORDER, _CROP, _CHOICE = 11, 12, 13


@dataclass(frozen=True, eq=False)
class Pictures:
    """Crops of `size` x `size`, each a function of its number and a seed alone.

    A resumed run, or one on several processes, so sees the same pictures without keeping a state.
    """

    pixels: Pixels
    """All levels of all pictures, one after the other."""
    levels: npt.NDArray[np.int64]
    """(n, 4): picture, where its pixels begin, height, width; sorted by picture."""
    sources: npt.NDArray[np.int64]
    """Which source each picture is from."""
    size: int
    skipped: int
    """Files that were no pictures, damaged, or too small."""
    shares: tuple[float, ...] | None = None
    """How often each source is drawn; None draws every picture once an epoch."""

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, first: int, count: int, seed: int) -> Image:
        """Return pictures `first` to `first + count - 1` of the endless series of that seed."""
        rows = [self._crop(n, seed) for n in range(first, first + count)]
        batch = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
        return batch.float() / 127.5 - 1

    def _crop(self, n: int, seed: int) -> Pixels:
        rng = np.random.default_rng((seed, _CROP, n))
        picture, owners = self._picture(n, seed), self.levels[:, 0]
        first, last = (np.searchsorted(owners, picture, side) for side in ("left", "right"))
        _, start, height, width = self.levels[rng.integers(first, last)]
        pixels = self.pixels[start : start + 3 * height * width].reshape(height, width, 3)
        y, x = rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        crop = pixels[y : y + self.size, x : x + self.size]
        return crop[:, ::-1] if rng.random() < 0.5 else crop

    def _picture(self, n: int, seed: int) -> int:
        if self.shares is not None:
            rng = np.random.default_rng((seed, _CHOICE, n))
            shares = np.array(self.shares)
            of_source = np.flatnonzero(
                self.sources == rng.choice(len(shares), p=shares / shares.sum())
            )
            return int(of_source[rng.integers(len(of_source))])
        epoch, place = divmod(n, len(self))
        return int(_order(len(self), seed, epoch)[place])


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def prepare(
    sources: Sequence[Source],
    *,
    size: int,
    crop: Crop,
    cache: Path,
    shares: Sequence[float] | None = None,
    on_picture: Callable[[int], None] | None = None,
) -> Pictures:
    """Return the pictures of all sources, decoded now or, from the second time on, long ago.

    Args:
        sources: Where the files come from. Those that are not pictures, are damaged or too small
            are counted, and passed over.
        size: Side of a crop in pixels.
        crop: `whole` reduces every picture by area averaging until its shorter side is `size` and
            keeps its centre; `random` keeps it at full size and at steps of sqrt(2) below, for
            crops anywhere.
        cache: Folder of the decoded pixels.
        shares: How often each source is drawn, instead of every picture once an epoch.
        on_picture: Told how many pictures are decoded.

    Raises:
        DataError: A source holds no usable picture.
        OutputError: The pixels cannot be kept.
    """
    key = json.dumps([FORMAT, size, crop, [source.fingerprint for source in sources]])
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.pixels"
    try:
        found = _opened(file)
        if found is None:
            cache.mkdir(parents=True, exist_ok=True)
            _decode(sources, size, crop, file, on_picture or (lambda count: None))
            found = _opened(file)
    except OSError as error:
        raise OutputError(
            f"{cache}: the decoded pictures cannot be kept: {error.strerror or error}.",
            "Choose a folder with more room:  --cache DIR",
        ) from error
    assert found is not None
    levels, owners, skipped, pixels = found
    for i, source in enumerate(sources):
        if i not in owners:
            raise DataError(
                f"{source.name} holds no usable picture of at least {size}x{size} pixels.",
                "Pass a folder that holds photographs.",
            )
    return Pictures(pixels, levels, owners, size, skipped, tuple(shares) if shares else None)


_Opened: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, Pixels]


def _opened(file: Path) -> _Opened | None:
    """Return the content of a cache file, or None where it is missing or not whole.

    At its end stand the levels, the owners and three numbers: how many of each, and the skipped.
    """
    if not file.is_file() or file.stat().st_size < 24:
        return None
    every = np.memmap(file, np.uint8, "r")
    tail = every[-24:].view(np.int64)
    num_levels, num_pictures, skipped = (int(n) for n in tail)
    inside = len(every) - 24 - 32 * num_levels - 8 * num_pictures
    if num_levels < 0 or num_pictures < 0 or inside < 0:
        return None
    levels = np.array(every[inside : inside + 32 * num_levels]).view(np.int64).reshape(-1, 4)
    owners = np.array(every[inside + 32 * num_levels : -24]).view(np.int64)
    if int((3 * levels[:, 2] * levels[:, 3]).sum()) + _padding(levels) != inside:
        return None
    return levels, owners, skipped, every[:inside]


def _padding(levels: npt.NDArray[np.int64]) -> int:
    return int(-(3 * levels[:, 2] * levels[:, 3]).sum() % 8)


def _decode(
    sources: Sequence[Source], size: int, crop: Crop, file: Path, told: Callable[[int], None]
) -> None:
    """Write a cache file, which appears whole or not at all."""
    levels: list[tuple[int, int, int, int]] = []
    owners: list[int] = []
    skipped = start = 0
    handle, part = tempfile.mkstemp(suffix=".part", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            for i, source in enumerate(sources):
                for _, content in source.files():
                    made = _levels(content, size, crop)
                    skipped += not made
                    for pixels in made:
                        stream.write(pixels.tobytes())
                        levels.append((len(owners), start, *pixels.shape[:2]))
                        start += pixels.size
                    if made:
                        owners.append(i)
                        told(len(owners))
            _finish(stream, levels, owners, skipped)
        Path(part).replace(file)
    finally:
        with suppress(FileNotFoundError):
            Path(part).unlink()


def _finish(
    stream: BinaryIO, levels: list[tuple[int, int, int, int]], owners: list[int], skipped: int
) -> None:
    table = np.array(levels, dtype=np.int64).reshape(-1, 4)
    stream.write(bytes(_padding(table)))
    stream.write(table.tobytes())
    stream.write(np.array(owners, dtype=np.int64).tobytes())
    stream.write(np.array([len(levels), len(owners), skipped], dtype=np.int64).tobytes())


def _levels(content: bytes, size: int, crop: Crop) -> list[Pixels]:
    """Return what is kept of one file: nothing where it is not a picture, damaged or too small."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
            with PillowImage.open(io.BytesIO(content)) as file:
                picture = ImageOps.exif_transpose(file)
                if picture.has_transparency_data:  # Over mid-grey, as if it were seen through.
                    picture = picture.convert("RGBA")
                    grey = PillowImage.new("RGBA", picture.size, (128, 128, 128, 255))
                    picture = PillowImage.alpha_composite(grey, picture)
                picture = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, PillowImage.DecompressionBombError,
            PillowImage.DecompressionBombWarning):  # fmt: skip
        return []
    return list(_whole(picture, size) if crop == "whole" else _pyramid(picture, size))


def _whole(picture: PillowImage.Image, size: int) -> Iterator[Pixels]:
    short = min(picture.size)
    if short < size:
        return
    if short % size == 0:  # Exact means over blocks; resizing rounds once for each axis.
        picture = picture.reduce(short // size)
    else:
        wanted = tuple(max(round(side * size / short), size) for side in picture.size)
        picture = picture.resize((wanted[0], wanted[1]), PillowImage.Resampling.BOX)
    width, height = picture.size
    left, top = (width - size) // 2, (height - size) // 2
    yield np.asarray(picture.crop((left, top, left + size, top + size)))


def _pyramid(picture: PillowImage.Image, size: int) -> Iterator[Pixels]:
    """Yield the picture at full size, then smaller by steps of sqrt(2) while a crop fits."""
    while min(picture.size) >= size:
        if picture.width * picture.height <= MOST_PIXELS:
            yield np.asarray(picture)
        width, height = (round(side * SCALE_STEP) for side in picture.size)
        picture = picture.resize((width, height), PillowImage.Resampling.BOX)
