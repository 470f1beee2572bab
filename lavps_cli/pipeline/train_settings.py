"""The settings of a training run: texts to numbers, config.toml, and what must stay on resuming."""

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.options import SECONDS
from lavps_cli.pipeline.requests import TrainingRequest

CONFIG = "config.toml"
FREE = frozenset(
    {
        "output", "resume", "duration", "max_time", "save_every", "keep", "sample_every",
        "log_every", "log", "device", "threads", "compile", "parallel", "batch_gpu", "cache",
        "dry_run", "licence", "start_from", "validation", "eval_every", "offline", "push", "public",
    }
)  # fmt: skip
"""What may change when a run goes on."""

_NOT_KEPT = frozenset({"dry_run", "resume", "output", "offline", "push", "public"})
"""What config.toml leaves out."""
_NOT_TOLD = frozenset({"dry_run", "resume", "cache", "offline", "push", "public"})
"""What the command of a card leaves out."""

_STEPS = {"": 1, "k": 1000}
_IMAGES = {"Ki": 2**10, "Mi": 2**20}


def parse_duration(text: str, batch: int) -> tuple[int | None, float]:
    """Return the steps of a training, or None, and its seconds, which may be infinite.

    Written as steps (`500`, `200k`), as pictures seen (`8Mi`) or as time (`90m`, `12h`).

    Raises:
        UsageError: It is none of these.
    """
    for units, finish in ((_IMAGES, "images"), (SECONDS, "time"), (_STEPS, "steps")):
        for unit, factor in units.items():
            number = text.removesuffix(unit) if unit else text
            if unit and number == text:
                continue
            try:
                value = float(number) * factor
            except ValueError:
                continue
            if not 0 < value < 1e12:
                break
            if finish == "time":
                return None, value
            return max(round(value / batch if finish == "images" else value), 1), float("inf")
    raise UsageError(
        f"--duration {text}: expected steps (200k), pictures (8Mi) or time (12h).",
        "For example:  --duration 20k",
    )


def parse_sizes(text: str, multiple: int) -> tuple[int, ...]:
    """Return the sides of training pictures; several, separated by commas, take turns.

    Raises:
        UsageError: One does not fit the network, or is no multiple of the first.
    """
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or any(n < multiple or n % multiple or n % sizes[0] for n in sizes):
        raise UsageError(
            f"--resolution {text}: sides are multiples of {multiple}, and of the first one.",
            "For example:  --resolution 64   or   --resolution 64,128,128",
        )
    return sizes


def parse_shares(text: str | None, count: int) -> tuple[float, ...] | None:
    """Return how often each data set is drawn.

    Raises:
        UsageError: The numbers are not positive, or not one for each.
    """
    if text is None:
        return None
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != count or any(not 0 < share < float("inf") for share in shares):
        raise UsageError(
            f"--shares {text}: expected {count} positive numbers, one for each --dataset.",
            "For example:  --shares 0.65,0.35",
        )
    return shares


def command_of(request: TrainingRequest) -> str:
    """Return the command line that asks for this training; what is as usual is left out."""
    usual = asdict(TrainingRequest(dataset=(), output=""))
    words = ["lavps train"]
    for name, value in asdict(request).items():
        if name in _NOT_TOLD or (name != "output" and value == usual[name]):
            continue
        flag = "--" + {"start_from": "from"}.get(name, name).replace("_", "-")
        values = value if isinstance(value, tuple) else (value,)
        words += [f"{flag} {_quoted(str(v))}" for v in values]
    return " ".join(words)


def _quoted(text: str) -> str:
    return f"'{text}'" if any(c in text for c in "*?[]{} ") else text


def write_config(run: Path, request: TrainingRequest) -> None:
    """Write config.toml: every setting, as given or by default.

    Raises:
        UsageError: TOML cannot say one.
    """
    lines = []
    for name, value in asdict(request).items():
        if value is not None and name not in _NOT_KEPT:
            value = list(value) if isinstance(value, tuple) else value
            line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
            try:
                lines.append(line.encode())
            except UnicodeEncodeError as error:
                raise UsageError(
                    f"--{name.replace('_', '-')} {value}: the name is no Unicode, and {CONFIG} "
                    "could not tell it.",
                    "Rename it.",
                ) from error
    part = run / f".{CONFIG}.part"
    part.write_bytes(b"\n".join(lines) + b"\n")
    part.replace(run / CONFIG)


def check_same(run: Path, request: TrainingRequest) -> None:
    """Check that a run is gone on with as it was begun.

    Raises:
        UsageError: Settings that decide the result are others.
        WeightsError: config.toml cannot be read.
    """
    path = run / CONFIG
    if not path.exists():
        return
    try:
        before: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read: {error}", "Start anew in another folder:  --output DIR"
        ) from error
    different = []
    for name, value in asdict(request).items():
        value = list(value) if isinstance(value, tuple) else value
        if name not in FREE and before.get(name) != value:
            different.append(f"{name.replace('_', '-')} {before.get(name)} there, {value} here")
    if different:
        raise UsageError(
            f"{run} was begun with other settings: {'; '.join(different)}.",
            "Go on with those, or start anew in another folder:  --output DIR",
        )
