"""`lavps doctor`: what is installed, and whether each device works."""

import importlib.metadata
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lavps_cli import __version__
from lavps_cli.errors import LavpsError
from lavps_cli.images.picture import FORMATS, is_writable
from lavps_cli.models.trained import Trained
from lavps_cli.pipeline.calibration import Calibration, load_all
from lavps_cli.pipeline.metrics import trunk_place
from lavps_cli.pipeline.model import devices, open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.weights.index import bundled

_LIBRARIES = ("torch", "numpy", "scipy", "pillow", "safetensors", "typer", "rich")
EXTRAS = {
    "deep": ("tifffile", "imagecodecs"),
    "heif": ("pillow_heif",),
    "plot": ("matplotlib",),
    "lpips": ("lpips",),
    "cmmd": ("transformers",),
    "diffusers": ("diffusers",),
    "hf-data": ("datasets",),
    "parquet": ("pyarrow",),
    "remote": ("fsspec", "s3fs"),
    "ray": ("ray",),
}
"""Optional packages by the names of pyproject.toml, in the order in which users want them."""
_VARIABLES = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "OMP_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """One device, tried with one step of the default model."""

    name: str
    about: str
    memory_gb: float | None
    dtype: str
    ok: bool
    seconds: float | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a bug report needs."""

    ok: bool
    """Whether `lavps restore` can run as it comes."""
    versions: dict[str, str]
    formats: dict[str, bool]
    """Whether each can be written."""
    extras: dict[str, bool]
    """What `pip install "lavps[NAME]"` brings, and whether it is here."""
    devices: list[DeviceReport]
    models: dict[str, str]
    """Names and folders of the weights that are here."""
    lpips: str
    """Where LPIPS's trunk lies, or why there is none."""
    calibrations: list[str]
    """What `lavps restore --budget` knows here, newest first."""
    terminal: dict[str, Any]


def diagnose() -> Diagnosis:
    """Return what is installed, and try every device."""
    reports = [_try_device(name) for name in devices()]
    versions = {"lavps": __version__, "python": platform.python_version()}
    versions |= {"platform": platform.platform()}
    versions |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    versions["torch"] = torch.__version__  # With the tag of the build.
    terminal: dict[str, Any] = {
        name: getattr(sys, name).isatty() for name in ("stdin", "stdout", "stderr")
    }
    terminal |= {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return Diagnosis(
        ok=reports[0].ok,
        versions=versions,
        formats={name: is_writable(name) for name in FORMATS},
        extras={name: all(map(_is_here, modules)) for name, modules in EXTRAS.items()},
        devices=reports,
        models={name: str(folder) for name, folder in bundled().items()},
        lpips=trunk_place(),
        calibrations=[_told(each, age) for each, age in load_all()],
        terminal=terminal,
    )


def _is_here(module: str) -> bool:
    return find_spec(module) is not None


def _told(calibration: Calibration, age: float) -> str:
    about = f"{calibration.task} at {calibration.size}x{calibration.size}"
    return f"{about} on {calibration.device}, {calibration.dtype}, {age / 86400:.1f} days old"


def _try_device(name: str) -> DeviceReport:
    """Denoise one small picture there."""
    problem, seconds, dtype = "", None, ""
    try:
        weights = open_weights(Compute(device=name))
        dtype = weights.dtype
        model = weights.model(weights.tiling(64, 64, None, None))
        xt = torch.zeros(1, 3, 64, 64, device=weights.device)
        t = torch.tensor(0.5, dtype=torch.float64)
        started = time.monotonic()
        with torch.inference_mode():
            assert not isinstance(model.denoiser, Trained)  # It is the default prior.
            sound = bool(model.denoiser(xt, t).isfinite().all())
        seconds = round(time.monotonic() - started, 3)
        problem = "" if sound else "the result is not a number"
    except LavpsError as error:
        problem = error.message
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    about, memory = _hardware(name)
    return DeviceReport(
        name=name,
        about=about,
        memory_gb=memory,
        dtype=dtype,
        ok=not problem,
        seconds=seconds,
        problem=problem,
    )


def _hardware(name: str) -> tuple[str, float | None]:
    if name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(name)
        return properties.name, round(properties.total_memory / 1e9, 1)
    if name != "cpu":
        return name, None
    about = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return about, None
    kilobytes = int(meminfo.read_text(encoding="ascii").split()[1])
    return about, round(kilobytes / 1e6, 1)
