"""`--kernel SPEC` to a blur kernel: a drawn or measured one, or one of a file."""

import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lavps_cli.errors import DataError, LavpsError, UsageError
from lavps_cli.images.reading import load_matrix
from lavps_cli.operators.kernels import (
    Kernel,
    box_kernel,
    disk_kernel,
    gaussian_kernel,
    line_kernel,
    motion_kernel,
    normalise_kernel,
)
from lavps_cli.storage.places import located

MAX_SIDE = 255
_MAX_BYTES = 1 << 24
_MAX_PIXELS = 1 << 20
_NUMBER = r"\d+(?:\.\d+)?"
FORMS = "a size (21), a spec (21@35, gaussian:15@2.5, disk:7, box:5) or an image/.npy file"


@dataclass(frozen=True, eq=False)
class KernelChoice:
    """A kernel and where it comes from."""

    values: Kernel
    about: dict[str, Any]
    """For the result: its type and parameters."""
    assumed: bool = False
    """Whether it is a random draw that no picture can confirm."""


def read_kernel(spec: str, intensity: float, seed: int) -> KernelChoice:
    """Return the kernel that a spec names.

    Raises:
        UsageError: The spec has no known form.
        DataError: The file holds no kernel.
    """
    drawn = _drawn(spec, intensity, seed)
    if drawn is not None:
        return drawn
    values = normalise_kernel(_file_values(spec))
    _check_side(spec, max(values.shape))
    about = {"type": "file", "file": spec, "size": max(values.shape), "source": "file"}
    return KernelChoice(values, about)


def _drawn(spec: str, intensity: float, seed: int) -> KernelChoice | None:
    """Return the kernel of a formula, None where the spec is not one."""
    if re.fullmatch(r"\d+", spec):
        size = _check_side(spec, int(spec))
        values = motion_kernel(size, intensity, torch.Generator().manual_seed(seed))
        about: dict[str, Any] = {
            "type": "motion",
            "size": size,
            "intensity": intensity,
            "seed": seed,
        }
        return KernelChoice(values, about | {"source": "flags"}, assumed=True)
    if match := re.fullmatch(rf"({_NUMBER})@(-?{_NUMBER})", spec):
        length, degrees = float(match[1]), float(match[2])
        _check_side(spec, length)
        about = {"type": "line", "length": length, "degrees": degrees}
        return KernelChoice(line_kernel(length, degrees), about | {"source": "flags"})
    if match := re.fullmatch(rf"gaussian:(\d+)@({_NUMBER})", spec):
        size, sigma = _check_side(spec, int(match[1])), float(match[2])
        about = {"type": "gaussian", "size": size, "sigma": sigma}
        return KernelChoice(gaussian_kernel(size, sigma), about | {"source": "flags"})
    if match := re.fullmatch(r"(disk|box):(\d+)", spec):
        size = _check_side(spec, int(match[2]))
        values = disk_kernel(size) if match[1] == "disk" else box_kernel(size)
        return KernelChoice(values, {"type": match[1], "size": size, "source": "flags"})
    return None


def _check_side(spec: str, side: int | float) -> int:
    if side > MAX_SIDE:
        raise UsageError(
            f"--kernel {spec}: the kernel has {side} pixels a side, more than {MAX_SIDE}.",
            "Shrink the picture and the kernel together.",
        )
    return int(side)


def _file_values(spec: str) -> torch.Tensor:
    path_text, _, member = (
        spec.rpartition(":") if re.search(r"\.npz:[^/\\]*$", spec) else (spec, "", "")
    )
    path = located(path_text)
    if not path.is_file():
        raise UsageError(
            f"--kernel {spec}: expected {FORMS}; no file named {path_text!r} here.",
            "For example:  --kernel 21   or   --kernel psf.png",
        )
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".txt"):
        return load_matrix(path, _MAX_PIXELS, upright=False)
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path} is too large for a kernel.", "Check that the file is a kernel.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(_array(path.read_bytes(), path_text, suffix, member))
    except LavpsError:
        raise
    except Exception as error:  # Readers of arrays throw anything at damaged files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} holds no kernel: {reason[:200]}", "Expected is one matrix of numbers."
        ) from error


def _array(content: bytes, name: str, suffix: str, member: str) -> npt.NDArray[np.float64]:
    """Return the numbers in a file; whatever its reader throws."""
    if suffix == ".txt":
        text = content.decode().replace(",", " ")
        if not text.strip():
            raise ValueError("it is empty")
        values = np.loadtxt(io.StringIO(text), ndmin=2, dtype=np.float64)
    elif suffix == ".npy":
        values = np.load(io.BytesIO(content), allow_pickle=False)
    else:
        values = _member(content, name, member)
    return np.asarray(values, dtype=np.float64)


def _member(content: bytes, name: str, member: str) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    if not member and len(sizes) == 1:
        member = next(iter(sizes))
    if member not in sizes:
        raise UsageError(
            f"--kernel {name}: which array? There is no {member!r}."
            if member
            else f"--kernel {name} holds several arrays.",
            f"Name one:  --kernel {name}:{next(iter(sizes), 'NAME')}   "
            f"of {', '.join(list(sizes)[:8])}",
        )
    if sizes[member] > _MAX_BYTES:
        raise DataError(f"{name}:{member} is too large for a kernel.", "Check the file.")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays[member]
