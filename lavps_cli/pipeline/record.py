"""The record that `degrade` leaves in a PNG, so that `restore` needs no other option.

It travels inside files from anywhere: every value is checked before it is used.
"""

import base64
import binascii
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import torch

from lavps_cli import __version__
from lavps_cli.catalog import DOWNSAMPLES, SCALES, TaskName, has_holes
from lavps_cli.errors import DataError, UsageError
from lavps_cli.operators.blur import Boundary
from lavps_cli.operators.inpainting import Mask
from lavps_cli.pipeline.kernels import MAX_SIDE, KernelChoice
from lavps_cli.pipeline.masks import DRAWS, MaskChoice, draw_mask

MAX_CHARS = 1 << 20
_MAX_SEED = 1 << 63
_KERNEL_KEYS = ("type", "size", "length", "degrees", "sigma", "intensity", "seed")


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """How a picture was degraded."""

    task: TaskName
    size: tuple[int, int]
    """Width and height of the degraded picture."""
    noise: float
    seed: int
    scale: int | None = None
    downsample: str | None = None
    """`area`, `bicubic`, or the spec of `filter`."""
    filter: KernelChoice | None = None
    kernel: KernelChoice | None = None
    boundary: Boundary | None = None
    mask: MaskChoice | None = None
    """None in a record of missing parts: the mask was too large for it."""
    gain: float | None = None
    peak: float | None = None
    """Photons that make white, where they were counted."""


def to_text(record: Record) -> str:
    """Return the record as one line of JSON."""
    entries: dict[str, Any] = {
        "schema": 1,
        "lavps": __version__,
        "task": record.task,
        "size": list(record.size),
        "noise": record.noise,
        "seed": record.seed,
    }
    if record.scale is not None:
        downsample = record.downsample if record.filter is None else _kernel_entry(record.filter)
        entries |= {"scale": record.scale, "downsample": downsample}
    if record.kernel is not None:
        entries |= {"kernel": _kernel_entry(record.kernel), "boundary": record.boundary}
    if record.gain is not None:
        entries["gain"] = record.gain
    if record.peak is not None:
        entries["peak"] = record.peak
    if record.mask is not None:
        entries["mask"] = _mask_entry(record.mask)
    text = json.dumps(entries, separators=(",", ":"))
    if len(text) > MAX_CHARS and record.mask is not None:
        entries["mask"] = None
        text = json.dumps(entries, separators=(",", ":"))
    return text


def _kernel_entry(kernel: KernelChoice) -> dict[str, Any]:
    values = kernel.values.contiguous().numpy().astype("<f4")
    about = {key: kernel.about[key] for key in _KERNEL_KEYS if key in kernel.about}
    return about | {"shape": list(values.shape), "values": _pack(values.tobytes())}


def _mask_entry(mask: MaskChoice) -> dict[str, Any]:
    bits = np.packbits(mask.values.numpy() > 0.5).tobytes()
    entry: dict[str, Any] = {"kind": mask.about["kind"], "crc32": zlib.crc32(bits)}
    if mask.about["kind"] in DRAWS:
        return entry | {"seed": mask.about["seed"]}
    return entry | {"kind": "file", "bits": _pack(bits)}


def from_text(text: str, size: tuple[int, int]) -> Record:
    """Return the record of a text from outside, found in a picture of that width and height.

    Raises:
        DataError: It is not a sound record; the message says where.
    """
    try:
        return _record(text, size)
    except (KeyError, TypeError, ValueError, RecursionError, UsageError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"the record of `lavps degrade` is unusable: {what}", "Say what was done with options."
        ) from error


def _record(text: str, size: tuple[int, int]) -> Record:
    if len(text) > MAX_CHARS:
        raise ValueError("it is too long")
    entries = json.loads(text, parse_constant=_refuse)
    if not isinstance(entries, dict) or entries.get("schema") != 1:
        raise ValueError("it is of another version")
    task = entries["task"]
    if task not in get_args(TaskName) or task == "jpeg":
        raise ValueError(f"unknown task {str(task)[:20]!r}")
    width, height = size
    if _items(entries["size"], 2) != [width, height]:
        raise ValueError("the picture has been resized since")
    scale = downsample = used = kernel = boundary = mask = None
    if task.startswith("sr"):
        scale = _integer(entries["scale"], min(SCALES), max(SCALES))
        downsample = entries["downsample"]
        if isinstance(downsample, dict):
            used, downsample = _kernel(downsample), "filter"
        elif downsample not in DOWNSAMPLES:
            raise ValueError("unknown reduction")
    if task.startswith("deblur"):
        kernel, boundary = _kernel(entries["kernel"]), entries["boundary"]
        if boundary not in get_args(Boundary):
            raise ValueError("unknown boundary")
    if has_holes(task) and entries["mask"] is not None:
        mask = _mask(entries["mask"], width, height)
    return Record(
        task=cast(TaskName, task),
        size=size,
        noise=float(_number(entries["noise"], 0, 10)),
        seed=_integer(entries["seed"], 0, _MAX_SEED),
        scale=scale,
        downsample=downsample,
        kernel=kernel,
        boundary=boundary,
        mask=mask,
        filter=used,
        gain=float(_number(entries["gain"], 1, 16)) if task == "declip" else None,
        peak=float(_number(entries["peak"], 1, 1_000_000)) if "peak" in entries else None,
    )


def _kernel(entry: Any) -> KernelChoice:
    rows, columns = (_integer(side, 1, MAX_SIDE) for side in _items(entry["shape"], 2))
    raw = _unpack(entry["values"], rows * columns * 4)
    values = torch.from_numpy(np.frombuffer(raw, "<f4").astype(np.float32)).view(rows, columns)
    sound = bool(values.isfinite().all()) and bool((values >= 0).all())
    if rows % 2 == 0 or columns % 2 == 0 or not sound or abs(float(values.sum()) - 1) > 1e-3:
        raise ValueError("its kernel is not one")
    about: dict[str, Any] = {"type": str(entry.get("type", "file"))[:16]}
    for key in _KERNEL_KEYS[1:]:
        if key in entry:
            about[key] = _number(entry[key], -_MAX_SEED, _MAX_SEED)
    return KernelChoice(values, about | {"source": "record"})


def _mask(entry: Any, width: int, height: int) -> MaskChoice:
    count = (width * height + 7) // 8
    crc = _integer(entry["crc32"], 0, 1 << 32)
    if entry["kind"] in DRAWS:
        choice = draw_mask(entry["kind"], width, height, _integer(entry["seed"], 0, _MAX_SEED))
        if zlib.crc32(np.packbits(choice.values.numpy() > 0.5).tobytes()) != crc:
            raise ValueError("its mask is drawn differently here; pass --mask")
        return choice
    bits = _unpack(entry["bits"], count)
    if zlib.crc32(bits) != crc:
        raise ValueError("its mask is damaged")
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=width * height)
    values: Mask = torch.from_numpy(flat.astype(np.float32)).view(1, height, width)
    return MaskChoice(values, {"kind": "file"})


def _pack(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def _unpack(text: Any, size: int) -> bytes:
    """Return exactly `size` bytes, never inflating more than that."""
    if not isinstance(text, str):
        raise TypeError("packed values are not text")
    try:
        inflate = zlib.decompressobj()
        content = inflate.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError("packed values are damaged") from error
    if len(content) != size:
        raise ValueError("packed values have another size")
    return content


def _items(value: Any, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"expected {count} numbers")
    return value


def _integer(value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError("a whole number is out of range")
    return value


def _number(value: Any, least: int, most: int) -> float | int:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not least <= value <= most:
        raise ValueError("a number is out of range")
    return cast(int | float, value)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
