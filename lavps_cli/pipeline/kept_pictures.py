"""The pictures that a run of measurements keeps for people to look at."""

from collections.abc import Sequence

from lavps_cli.bench.records import Record
from lavps_cli.core.types import Image, Measurement
from lavps_cli.images.picture import Picture
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import encode, write_atomic
from lavps_cli.pipeline.measuring import Keep
from lavps_cli.storage.places import Place

SHOWN = 3
"""Test images whose results are kept unasked."""


def picture_file(folder: Place, config: str, mark: str) -> Place:
    """Return where the result of a configuration on an image is kept.

    Args:
        folder: Of the pictures.
        config: Digest of the configuration.
        mark: Digest of the image's pixels.
    """
    return folder / f"{config}-{mark}.png"


def seen_file(folder: Place, task: str, mark: str) -> Place:
    """Return where the observation of an image under a family is kept."""
    name = "".join(c if c.isalnum() else "-" for c in task)
    return folder / f"{name}-{mark}-seen.png"


def load_pairs(
    folder: Place, config: str, images: Sequence[str]
) -> tuple[list[Image], list[Image]]:
    """Return the results of a configuration and the clean pictures, of the images that are kept."""
    results: list[Image] = []
    clean: list[Image] = []
    for image in images:
        mark = image.rpartition("#")[2]
        paths = (picture_file(folder, config, mark), folder / f"{mark}-clean.png")
        if all(path.is_file() for path in paths):
            a, b = (load_picture(path, path.name).pixels for path in paths)
            results.append(a)
            clean.append(b)
    return results, clean


def keeper(folder: Place, names: Sequence[str], *, every: bool) -> Keep:
    """Return what keeps the pictures of the first test images, or of all."""

    def keep(record: Record, seen: Measurement, xhat: Image, x: Image) -> None:
        if record.split != "test" or not (every or record.image in names[:SHOWN]):
            return
        folder.mkdir(parents=True, exist_ok=True)
        mark = record.image.rpartition("#")[2]
        for path, picture in (
            (picture_file(folder, record.config, mark), xhat),
            (seen_file(folder, record.task, mark), seen),
            (folder / f"{mark}-clean.png", x),
        ):
            write_atomic(path, encode(Picture(picture.cpu().clamp(-1, 1)), "png"))

    return keep
