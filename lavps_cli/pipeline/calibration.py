"""Fronts that `calibrate-speedup` has measured on this machine, and how others use them."""

import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lavps_cli import catalog
from lavps_cli.errors import OutputError, UsageError
from lavps_cli.folders import cache_folder
from lavps_cli.images.writing import write_atomic
from lavps_cli.pipeline.measuring import device_name, threads_of
from lavps_cli.pipeline.model import Weights
from lavps_cli.pipeline.settings import ladder, probe, units

FORMAT = 1
FOLDER = "calibration"
PROBE_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One configuration of a front."""

    options: dict[str, Any]
    units: float
    seconds: float
    loss: float
    """Lower is better."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The fronts of the methods for one task, on one device."""

    device: str
    dtype: str
    threads: int
    model: str
    task: str
    size: int
    metric: str
    images: int
    fronts: dict[str, list[FrontPoint]]
    format: int = FORMAT


def model_key(weights: Weights) -> str:
    """Return what tells weights apart: a front of others says nothing."""
    inference = (weights.inference_digest or "none")[:8]
    return f"{weights.name}@{weights.digest[:8]}+{inference}"


def save(calibration: Calibration) -> Path:
    """Keep a calibration; one of the same device, model and task is replaced.

    Raises:
        OutputError: It cannot be written.
    """
    about = (calibration.device, calibration.dtype, calibration.model, calibration.task)
    text = "\0".join((*about, str(calibration.threads), str(calibration.size)))
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    return keep(cache_folder(FOLDER) / f"{mark}.json", asdict(calibration))


def keep(path: Path, values: dict[str, Any]) -> Path:
    """Write what was measured, in a folder that is made if it is not there.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent} cannot be made: {error.strerror}.", "Or leave it out:  --no-save"
        ) from error
    write_atomic(path, (json.dumps(values, indent=1) + "\n").encode())
    return path


def load_all() -> list[tuple[Calibration, float]]:
    """Return the calibrations that can be read with their age in seconds, newest first."""
    found = []
    paths = cache_folder(FOLDER).glob("*.json") if cache_folder(FOLDER).is_dir() else []
    now = time.time()
    for age, path in sorted((now - path.stat().st_mtime, path) for path in paths):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format") != FORMAT:
                continue
            fronts = {
                str(method): [FrontPoint(**point) for point in points]
                for method, points in values.pop("fronts").items()
            }
            found.append((Calibration(**values, fronts=fronts), age))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def find(weights: Weights, task: str) -> Calibration | None:
    """Return the calibration of this device and these weights for a task.

    Args:
        weights: The networks and their device.
        task: A family of operators, which is sought first as it is, then by its kind; or a kind.
    """
    mine = [
        each
        for each, _ in load_all()
        if (each.device, each.dtype, each.threads)
        == (device_name(weights.device), weights.dtype, threads_of(weights))
        and _same_model(each.model, weights)
    ]
    exact = [each for each in mine if each.task == task]
    same = [each for each in mine if kind_of(each.task) == kind_of(task)]
    return next(iter(exact + same), None)


def _same_model(key: str, weights: Weights) -> bool:
    """Return whether a front is of these weights; without an inference model, of this prior."""
    mine = model_key(weights)
    if weights.inference_folder is None:
        return key.partition("+")[0] == mine.partition("+")[0]
    return key == mine


def kind_of(task: str) -> str:
    """Return the kind of a family of operators: sr, deblur, inpaint, denoise."""
    return task.partition(":")[0].partition("+")[0]


def stored_settings(weights: Weights, method: str, task: str) -> list[Any]:
    """Return the settings on the stored front of a method, cheapest first; none without one."""
    found = find(weights, task)
    points = found.fronts.get(method, []) if found is not None else []
    cls = catalog.resolve(catalog.sampler(method).options)
    known = set(cls.__dataclass_fields__)
    return [cls(**p.options) for p in points if set(p.options) <= known]


@dataclass(frozen=True)
class Costs:
    """What settings of a method cost on this machine, for choosing by time."""

    options: list[Any]
    """Cheapest first; later ones are better."""
    seconds: list[float]
    """Of a picture of `pixels`."""
    pixels: int
    source: str
    """`calibration` or `probe`."""

    def choose(self, budget: float, pixels: int) -> tuple[Any, float]:
        """Return the best settings that fit, and their time.

        Raises:
            UsageError: None does.
        """
        times = [each * pixels / self.pixels for each in self.seconds]
        fit = [i for i, each in enumerate(times) if each <= budget]
        if not fit:
            raise UsageError(
                f"--budget {budget:g}s: the cheapest settings take {min(times):.2g} s for such a "
                "picture on this device.",
                f"Give more:  --budget {max(min(times) * 1.1, 0.01):.2g}s   or a smaller picture",
            )
        return self.options[fit[-1]], times[fit[-1]]


def probe_size(pixels: int) -> int:
    """Return the side of what is timed for a picture: small ones take longer, for their size."""
    return PROBE_SIZE if pixels < 2 * PROBE_SIZE**2 else 2 * PROBE_SIZE


def costs(
    weights: Weights, method: str, task: str, pixels: int, extra: Sequence[str] = ()
) -> Costs:
    """Return the settings a budget chooses from: a stored front, else the usual ones and a probe.

    Args:
        weights: The networks and their device.
        method: A name in the catalogue.
        task: A kind of operators.
        pixels: Of the pictures, roughly.
        extra: `name=value` texts that all settings have in common.

    Raises:
        UsageError: They say the number of steps, which a budget is to choose.
    """
    if any(text.startswith("num_steps=") for text in extra):
        raise UsageError("--budget chooses num_steps.", "Leave out:  -O num_steps=...")
    found = find(weights, task)
    if found is not None and found.fronts.get(method) and not extra:
        points = found.fronts[method]
        return Costs(
            stored_settings(weights, method, found.task),
            [point.seconds for point in points],
            found.size**2,
            "calibration",
        )
    speed = probe(weights, method, probe_size(pixels))
    options = ladder(weights, method, extra)
    seconds = [speed.predict(units(weights, method, each)) for each in options]
    return Costs(options, seconds, speed.pixels, "probe")


def expected_seconds(weights: Weights, method: str, task: str, options: Any, pixels: int) -> float:
    """Return the seconds that a picture should take: by a calibration, else by a probe."""
    cost, found = units(weights, method, options), find(weights, task)
    if found is not None and found.fronts.get(method):
        rate = statistics.median(point.seconds / point.units for point in found.fronts[method])
        return rate * cost * pixels / found.size**2
    return probe(weights, method, probe_size(pixels)).predict(cost, pixels)
