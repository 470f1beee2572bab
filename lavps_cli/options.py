"""Texts of the command line to checked values; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lavps_cli.errors import UsageError, suggestion

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""In a unit of time."""
MOST_COUNT = 1_000_000
"""Steps, threads, pixels of a side: more than anybody has."""
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def parse_settings(options: type, texts: Sequence[str]) -> dict[str, Any]:
    """Return the values of `name=value` texts, typed as the fields of a dataclass.

    Raises:
        UsageError: A name is unknown or given twice, or a value is not of its type.
    """
    assert is_dataclass(options)
    hints = get_type_hints(options)
    known = [field.name for field in fields(options)]
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"-O {text}: expected name=value.", f"Names: {', '.join(known)}")
        if name not in known:
            raise UsageError(f"-O {text}: there is no option {name!r}.", suggestion(name, known))
        if name in values:
            raise UsageError(f"-O {name} is given twice.", "Give it once.")
        values[name] = _typed(text, value, hints[name])
    return values


def _typed(text: str, value: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(
                f"-O {text}: {value!r} is not allowed.",
                suggestion(value, [str(choice) for choice in get_args(kind)]),
            )
        return value
    if kind is bool:
        if value.lower() in _TRUE + _FALSE:
            return value.lower() in _TRUE
    elif kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            pass
        else:
            if abs(number) <= MOST_COUNT or kind is float:
                return number
            raise UsageError(
                f"-O {text}: that is more than {MOST_COUNT}.", f"Less:  -O {_example(text, kind)}"
            )
    else:
        return value
    raise UsageError(
        f"-O {text}: {value!r} is not {_KINDS[kind]}.", f"For example:  -O {_example(text, kind)}"
    )


def _example(text: str, kind: type) -> str:
    return f"{text.partition('=')[0]}={ {int: '3', float: '0.3', bool: 'true'}[kind] }"


MOST_NOISE = 2.0
"""sigma_y that hides a picture: the distance from black to white."""


@dataclass(frozen=True)
class ShotNoise:
    """Noise of photons that are counted."""

    peak: float
    """How many make white."""


def parse_noise(text: str) -> float | ShotNoise | None:
    """Return sigma_y on the [-1, 1] scale, shot noise, or None for `auto`.

    A plain number is on that scale; `x/255` is in levels of a picture with 256 of them.

    Raises:
        UsageError: It is neither, negative, or more than there is picture.
    """
    if text == "auto":
        return None
    law, colon, peak = text.partition(":")
    if colon and law == "poisson":
        return ShotNoise(_peak(peak))
    number, slash, levels = text.partition("/")
    try:
        value = 2 * float(number) / float(levels) if slash else float(number)
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(
            f"--noise {text}: expected auto, a deviation on the [-1, 1] scale, x/255, or "
            "poisson:PHOTONS.",
            "For example:  --noise 0.05   or   --noise 6.4/255   or   --noise poisson:50",
        )
    if value > MOST_NOISE:
        raise UsageError(
            f"--noise {text}: values of pictures go from -1 to 1, and {value:g} is more noise than "
            "there is picture.",
            f"In 8-bit levels:  --noise {number}/255" if not slash and value <= 255
            else f"At most:  --noise {MOST_NOISE}",
        )  # fmt: skip
    return value


def _peak(text: str) -> float:
    try:
        peak = float(text)
    except ValueError:
        peak = 0.0
    if not 1 <= peak <= 1e6:
        raise UsageError(
            f"--noise poisson:{text}: expected how many photons make white, 1 to 1000000.",
            "For example:  --noise poisson:50",
        )
    return peak


def parse_count(option: str, text: str, least: int) -> int | None:
    """Return a whole number of at least `least`, None for `auto`.

    Raises:
        UsageError: It is neither.
    """
    if text == "auto":
        return None
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= MOST_COUNT:
        raise UsageError(
            f"{option} {text}: expected auto or a whole number from {least} to {MOST_COUNT}.",
            f"For example:  {option} auto",
        )
    return value


def parse_pixels(text: str) -> int:
    """Return a number of pixels, written like 5000000, 500k, 200M or 1G.

    Raises:
        UsageError: It is not one.
    """
    factor = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:].lower(), 1)
    number = text[:-1] if factor > 1 else text
    try:
        value = int(float(number) * factor)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise UsageError(f"--max-pixels {text}: expected a number.", "For example:  200M")
    return value


def parse_seconds(option: str, text: str | None) -> float:
    """Return a time such as `50ms`, `90s`, `10m` or `2h` in seconds; None is for ever.

    Raises:
        UsageError: It is not one.
    """
    if text is None:
        return float("inf")
    try:
        unit = "ms" if text.endswith("ms") else text[-1:]
        value = float(text.removesuffix(unit)) * (0.001 if unit == "ms" else SECONDS[unit])
    except (KeyError, ValueError):
        value = 0.0
    if not value > 0:
        raise UsageError(f"{option} {text}: expected a time.", f"For example:  {option} 2h")
    return value
