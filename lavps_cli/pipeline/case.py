"""One picture and the problem that it poses, as flags and its record tell."""

from dataclasses import dataclass, replace

from lavps_cli.catalog import TaskName
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError
from lavps_cli.images.picture import Metadata, Picture
from lavps_cli.images.reading import load_picture
from lavps_cli.options import parse_pixels
from lavps_cli.pipeline.damage import degrade_picture
from lavps_cli.pipeline.problem import Observation, observation
from lavps_cli.pipeline.record import Record, from_text
from lavps_cli.pipeline.requests import Restoration


@dataclass(frozen=True, eq=False)
class Case:
    """One picture and the problem that it poses."""

    picture: Picture
    seen: Observation
    clean: Image | None
    """What to score against, if it is known."""
    warnings: list[str]


def read_case(content: bytes, name: str, request: Restoration) -> Case:
    """Return the picture of a file and what there is to know about it.

    Args:
        content: The whole file.
        name: What messages call it.
        request: What is asked.

    Raises:
        LavpsError: It cannot be used as asked.
    """
    max_pixels = parse_pixels(request.compute.max_pixels)
    picture = load_picture(
        content,
        name,
        max_pixels,
        page=request.page,
        may_cut=request.output.bit_depth == "8",
    )
    if request.output.metadata == "strip":
        picture = replace(picture, metadata=Metadata(), stored=None)
    if request.output.alpha == "drop" and request.problem.mask != "alpha":
        picture = replace(picture, alpha=None)
    if request.sampling.simulate:
        made = degrade_picture(picture, name, request.problem, request.sampling.seed)
        seen, clean = made.observation, made.observation.seen(made.clean)
        # Of what was simulated there is no file: the results are in sRGB.
        metadata = picture.metadata
        if picture.stored is not None:
            metadata = replace(metadata, icc=b"")
        picture = replace(
            picture, pixels=clean, alpha=made.alpha, stored=None, metadata=metadata, jpeg=None
        )
        case = Case(picture, seen, clean, list(made.notes))
    else:
        record, warnings = _record_of(picture, name)
        seen = observation(picture, name, request.problem, record)
        picture = _for_result(picture, seen.degradation.task)
        if request.problem.mask == "alpha":
            picture = replace(picture, alpha=None)  # What was transparent is filled.
        warnings = [*picture.notes, *warnings, *seen.warnings]
        case = Case(picture, seen, None, warnings)
    _check_scene(case.seen, name, max_pixels)
    return case


def _for_result(picture: Picture, task: TaskName) -> Picture:
    """Return a picture whose colours are of the kind that the result has."""
    if task == "jpeg" and picture.stored is not None:
        # What was compressed are the file's own values: the result has them, too.
        return replace(picture, pixels=picture.stored, stored=None)
    if task == "colorize" and picture.grey:
        metadata = replace(picture.metadata, icc=b"")  # That of greys.
        pixels = picture.pixels.expand(1, 3, -1, -1)
        return replace(picture, pixels=pixels, stored=None, metadata=metadata)
    return picture


def _check_scene(seen: Observation, name: str, max_pixels: int) -> None:
    height, width = seen.shape
    if height * width > max_pixels:
        raise DataError(
            f"the result of {name} would have {width}x{height} pixels, more than "
            f"--max-pixels {max_pixels}.",
            f"If you want it:  --max-pixels {height * width}",
        )


def _record_of(picture: Picture, name: str) -> tuple[Record | None, list[str]]:
    """Return the record in a picture, or why it is none."""
    if picture.record is None:
        return None, []
    try:
        return from_text(picture.record, picture.size), []
    except DataError as error:
        return None, [f"{name}: {error.message}"]
