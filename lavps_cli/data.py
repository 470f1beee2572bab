"""Pictures for training: folders decoded once, and random crops of them at several scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from lavps_cli.core.types import Image
from lavps_cli.errors import DataError

Pixels = npt.NDArray[np.uint8]

_SCALE_STEP = 2**-0.5


def _pyramid(path: Path, size: int) -> list[Pixels]:
    """Return the picture at full size, then smaller by steps of sqrt(2) while a crop fits."""
    with PillowImage.open(path) as file:
        picture = file.convert("RGB")
    levels = []
    while min(picture.size) >= size:
        levels.append(np.asarray(picture))
        width, height = (round(side * _SCALE_STEP) for side in picture.size)
        picture = picture.resize((width, height), PillowImage.Resampling.BOX)
    return levels


@dataclass(frozen=True, eq=False)
class Crops:
    """Random crops of `size` x `size` at several scales, flipped half the time."""

    pyramids: Sequence[Sequence[Pixels]]
    probabilities: npt.NDArray[np.float64]
    """How likely each picture is drawn; sums to 1."""
    size: int

    def draw(self, count: int, rng: np.random.Generator) -> Image:
        """Return crops in [-1, 1]."""
        rows = []
        for index in rng.choice(len(self.pyramids), size=count, p=self.probabilities):
            levels = self.pyramids[index]
            picture = levels[int(rng.integers(len(levels)))]
            y = rng.integers(picture.shape[0] - self.size + 1)
            x = rng.integers(picture.shape[1] - self.size + 1)
            crop = picture[y : y + self.size, x : x + self.size]
            rows.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
        batch = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
        return batch.float() / 127.5 - 1


def load_crops(groups: Sequence[tuple[Sequence[Path], float]], size: int) -> Crops:
    """Decode pictures for random crops.

    Args:
        groups: Lists of files, each with the share of the crops that comes from it. Files that
            are not pictures, or too small for a crop, are passed over.
        size: Side of a crop in pixels.

    Raises:
        DataError: A group holds no usable picture.
    """
    pyramids: list[list[Pixels]] = []
    weights: list[float] = []
    for files, share in groups:
        usable = []
        for path in files:
            try:
                levels = _pyramid(path, size)
            except (UnidentifiedImageError, OSError):
                continue
            if levels:
                usable.append(levels)
        if not usable:
            raise DataError(
                f"none of {len(files)} files is a picture of at least {size}x{size} pixels.",
                "Pass a folder that holds photographs.",
            )
        pyramids += usable
        weights += [share / len(usable)] * len(usable)
    probabilities = np.array(weights)
    return Crops(pyramids, probabilities / probabilities.sum(), size)
