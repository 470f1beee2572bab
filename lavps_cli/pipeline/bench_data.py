"""The pictures that measurements are made on: bundled ones, or a data set of the user's."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from lavps_cli import catalog
from lavps_cli.bench.records import Split
from lavps_cli.bench.runner import Images
from lavps_cli.core.types import Image
from lavps_cli.data.known import KNOWN
from lavps_cli.data.sources import Source, open_source
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.reading import load_picture
from lavps_cli.pipeline.results import Listener
from lavps_cli.training.families import Family, parse_families

BUILTIN = "builtin"
PICTURES = Path(__file__).parent.parent / "bench" / "pictures"
VALIDATION = 4
"""Of the bundled pictures, the first; and of a data set without splits, one of so many."""


@dataclass(frozen=True, eq=False)
class TestPictures:
    """Clean pictures of one size, by split."""

    names: dict[Split, list[str]]
    """Name, and the first digits of the digest of the pixels."""
    pixels: dict[Split, list[Image]]
    """(1, 3, size, size), in the same order."""

    __test__ = False  # To pytest, it is no test.

    def images(self, split: Split) -> Images:
        return Images(split, self.names[split])


def load_pictures(
    dataset: str, size: int, count: int | None, listener: Listener, *, validation: int = 32
) -> TestPictures:
    """Return the pictures of a data set: middle squares, reduced to `size` by area.

    Known data sets have the splits of their protocol. Of the others, every fourth picture is for
    validation; of the bundled ones, the first four.

    Args:
        dataset: `builtin`, or as `lavps train --dataset`.
        size: Side in pixels; smaller pictures are left out, with a warning.
        count: At most so many for the test, None for all.
        listener: Told what is left out.
        validation: At most so many for validation.

    Raises:
        WeightsError: The data set is not here.
        UsageError: No picture is left.
    """
    known = dataset.partition("=")[0] in KNOWN
    if known:
        of = {
            "validation": _decoded(open_source(dataset, "validation"), size, listener, validation),
            "test": _decoded(open_source(dataset, "test"), size, listener, count),
        }
    else:
        source = open_source(str(PICTURES) if dataset == BUILTIN else dataset)
        wanted = None if count is None else count + -(-count // (VALIDATION - 1))
        found = _decoded(source, size, listener, None if dataset == BUILTIN else wanted)
        if dataset == BUILTIN:
            first, rest = found[:VALIDATION], found[VALIDATION:]
        else:
            first = found[::VALIDATION]
            rest = [each for i, each in enumerate(found) if i % VALIDATION]
        of = {"validation": first[:validation], "test": rest[:count]}
    if not of["test"] or not of["validation"]:
        raise UsageError(
            f"--dataset {dataset}: too few pictures of {size}x{size} and more: "
            f"{len(of['validation'])} for validation, {len(of['test'])} for the test.",
            "Give more pictures, or a smaller --size.",
        )
    splits: tuple[Split, ...] = ("validation", "test")
    return TestPictures(
        names={split: [name for name, _ in of[split]] for split in splits},
        pixels={split: [x for _, x in of[split]] for split in splits},
    )


def _decoded(
    source: Source, size: int, listener: Listener, count: int | None
) -> list[tuple[str, Image]]:
    return list(islice(_each(source, size, listener), count))


def _each(source: Source, size: int, listener: Listener) -> Iterator[tuple[str, Image]]:
    for name, content in source.files():
        try:
            picture = load_picture(content, name)
        except DataError as error:
            listener.warn(f"left out: {error.message}")
            continue
        if min(picture.size) < size:
            width, height = picture.size
            listener.warn(f"left out: {name} is {width}x{height}, smaller than --size {size}.")
            continue
        x = squared(picture.pixels, size)
        digest = hashlib.sha256(x.numpy().tobytes()).hexdigest()[:8]
        yield f"{Path(name).name}#{digest}", x


def squared(pixels: Image, size: int) -> Float[Tensor, "1 3 n n"]:
    """Return the middle square of a picture, in colour, reduced by area, in 8-bit levels."""
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    x = pixels.expand(-1, 3, -1, -1)[..., top : top + side, left : left + side]
    x = interpolate(x, (size, size), mode="area")
    return torch.round((x + 1) * 127.5) / 127.5 - 1


def parse_tasks(tasks: str, ood: str, size: int) -> list[Family]:
    """Return the families that are measured: those of the tasks, then those out of distribution.

    Args:
        tasks: Names of tasks or families, separated by commas.
        ood: The same, or `auto` for those that belong to the tasks, or `none`.
        size: Side of the pictures.

    Raises:
        UsageError: One is neither.
    """
    named = [text.strip() for text in tasks.split(",") if text.strip()]
    texts = [catalog.BENCHMARKS[n][0] if n in catalog.BENCHMARKS else n for n in named]
    if ood == "auto":
        texts += [catalog.BENCHMARKS[n][1] for n in named if n in catalog.BENCHMARKS]
    elif ood != "none":
        texts += [text.strip() for text in ood.split(",")]
    if not texts:
        raise UsageError("--tasks names nothing.", f"Choose from: {', '.join(catalog.BENCHMARKS)}")
    return parse_families(",".join(dict.fromkeys(texts)), size)
