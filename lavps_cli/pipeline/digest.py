"""Digests of everything that decides a result, beside the input."""

import hashlib
import json
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from lavps_cli.pipeline.model import Weights
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.storage.places import located


def settings_digest(request: Restoration, weights: Weights, options: Any) -> str:
    """Return a digest of everything that decides the pixels, and of nothing else."""
    sampling, output = asdict(request.sampling), request.output
    for name in ("preset", "settings", "uncertainty", "intervals"):
        del sampling[name]
    inference = weights.inference_digest
    settings = {
        "problem": asdict(request.problem),
        "sampling": sampling,
        "options": asdict(options),
        "tile": [request.compute.tile, request.compute.overlap],
        "dtype": weights.dtype,
        "model": [weights.digest, inference],
        "file": [output.format, output.quality, output.bit_depth, output.metadata, output.alpha],
        "page": request.page,
    }
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def work_digest(request: Restoration, weights: Weights, options: Any) -> str:
    """Return a digest of the settings, of the files that they name, and of what is written.

    Two runs with the same one and the same input write the same files.
    """
    output, sampling = request.output, request.sampling
    names = {name: getattr(request.problem, name) for name in ("kernel", "mask", "downsample")}
    files = {name: _content(spec) for name, spec in names.items()}
    # A file counts by its content: it may be moved, or named from elsewhere.
    unnamed: dict[str, Any] = {name: "" for name, content in files.items() if content is not None}
    request = replace(request, problem=replace(request.problem, **unnamed))
    written = [output.compare, sampling.uncertainty is not None, sampling.intervals]
    # What fits a budget differs from run to run, what was asked for does not.
    settings = settings_digest(request, weights, options)
    text = json.dumps([settings, files, written, sampling.budget])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(spec: str | None) -> str | None:
    """Return a digest of the file that a flag names, None where it names none."""
    if spec is None:
        return None
    for name in (spec, spec.rpartition(":")[0]):  # An array in a file: `kernels.npz:name`.
        try:
            about = located(name).stat()
            if name and located(name).is_file():
                return _digest(name, about.st_size, about.st_mtime_ns)
        except (OSError, ValueError):
            continue
    return None


@lru_cache(maxsize=64)
def _digest(name: str, size: int, time: int) -> str:
    return hashlib.sha256(located(name).read_bytes()).hexdigest()
