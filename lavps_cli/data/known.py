"""Data sets that are known by name, with the splits of the published protocols."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

SplitName: TypeAlias = Literal["train", "validation", "test"]
Select: TypeAlias = Callable[[Sequence[str]], list[str]]
"""Names of all pictures, sorted -> those of the split."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A data set that a user has to get for himself."""

    folders: tuple[str, ...]
    """What its folder may be called below $LAVPS_DATA."""
    size: str
    licence: str
    source: str
    splits: dict[SplitName, Select]


def _numbers(first: int, last: int) -> Select:
    """Return what keeps the pictures whose file name is a number from `first` to `last`."""

    def select(names: Sequence[str]) -> list[str]:
        return [
            name
            for name in names
            if (stem := name.rsplit("/", 1)[-1].partition(".")[0]).isdigit()
            and first <= int(stem) <= last
        ]

    return select


def _below(part: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if f"/{part}/" in f"/{name}"]


def _one_percent(names: Sequence[str]) -> list[str]:
    """Return a fixed hundredth of the pictures below `train`."""
    found = _below("train", names)
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in sorted(order[: max(len(found) // 100, 1)])]


def _of_each_class(place: int, count: int) -> Select:
    """Return the first (0) or last (-1) picture of each folder below `val`, `count` of them."""

    def select(names: Sequence[str]) -> list[str]:
        classes: dict[str, list[str]] = {}
        for name in _below("val", names):
            classes.setdefault(name.rsplit("/", 1)[0], []).append(name)
        chosen = [found[place] for found in classes.values()]
        order = np.random.default_rng(0).permutation(len(chosen))[:count]
        return [chosen[i] for i in sorted(order)]

    return select


_FFHQ = "CC BY-NC-SA 4.0 (Flickr-Faces-HQ; single pictures under their own): not for commerce"

KNOWN: dict[str, Known] = {
    "ffhq": Known(
        folders=("ffhq",),
        size="70 000 faces, 1024 x 1024 or reduced",
        licence=_FFHQ,
        source="https://github.com/NVlabs/ffhq-dataset",
        splits={
            "train": _numbers(0, 59999),
            "validation": _numbers(61000, 61031),
            "test": _numbers(69000, 69299),
        },
    ),
    "ffhq-4500": Known(
        folders=("ffhq-4500", "ffhq128"),
        size="the first 4 500 of them",
        licence=_FFHQ,
        source="https://github.com/NVlabs/ffhq-dataset",
        splits={
            "train": _numbers(0, 3999),
            "validation": _numbers(4000, 4031),
            "test": _numbers(4100, 4399),
        },
    ),
    "imagenet": Known(
        folders=("imagenet", "ILSVRC2012"),
        size="1.28 M pictures of 1 000 classes; train/CLASS/*, val/CLASS/*",
        licence="for non-commercial research and education, by agreement with image-net.org",
        source="https://image-net.org",
        splits={
            "train": _one_percent,
            "validation": _of_each_class(0, 32),
            "test": _of_each_class(-1, 300),
        },
    ),
}


def list_known() -> list[dict[str, Any]]:
    """Return name, size, licence and source of every known data set."""
    return [
        {"name": name, "size": known.size, "licence": known.licence, "source": known.source}
        for name, known in KNOWN.items()
    ]
