"""Files of tensors of any project, read without running anything that is in them."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lavps_cli.errors import WeightsError

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file of weights holds: tensors and plain values, nested as they were."""

    path: Path
    tree: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    """Of a safetensors file."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """A model of another project in our terms."""

    config: dict[str, Any]
    """config.json; `kind`, `schedule`, `image_size`, `model`, and what else is known."""
    state: dict[str, Tensor]
    """The tensors, under the names of our network."""


def read_contents(path: Path) -> Contents:
    """Return what is in a file of tensors.

    A pickle may hold tensors, numbers, texts and containers of these; PyTorch's restricted reader
    refuses anything else before it is made.

    Raises:
        WeightsError: It is damaged, not there, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file.", "Check the path.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tree = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return Contents(path, tree, dict(file.metadata() or {}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of what may be refused in a moment.
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_plain_zip(path))
    except Exception as error:  # Damaged files make the readers raise anything.
        raise WeightsError(
            f"{path} cannot be read as tensors: {_reason(error)}",
            "The file may be damaged, or hold more than tensors and plain values, which is "
            "never loaded.",
        ) from error
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{path} holds no table of tensors.", "Is it a file of weights?")
    return Contents(path, dict(tree))


def _is_plain_zip(path: Path) -> bool:
    """Return whether tensors can be read where they lie, so that memory holds only what is used.

    Raises:
        ValueError: It is compressed, which PyTorch never does, and could be of any size.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
    return True


def _reason(error: Exception) -> str:
    """Return why; PyTorch's own text for pickles it refuses tells how to run them all the same."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds other things."
    told = str(error).strip().splitlines()
    return told[0] if told else type(error).__name__


def tensors_of(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of one table whose names begin with `prefix`, without it."""
    return {
        str(name)[len(prefix) :]: value
        for name, value in tree.items()
        if isinstance(value, Tensor) and str(name).startswith(prefix)
    }
