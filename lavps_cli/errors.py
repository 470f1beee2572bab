"""Everything that can go wrong for a reason the user can act on, with its exit code."""

from collections.abc import Sequence
from difflib import get_close_matches


class LavpsError(Exception):
    """A failure the user can act on: one sentence what, and a hint what to do next."""

    exit_code = 1
    code = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LavpsError, ValueError):
    """An option, a name or a combination is not acceptable."""

    exit_code = 2
    code = "usage"


class DataError(LavpsError):
    """An input picture, mask or kernel cannot be used."""

    exit_code = 3
    code = "unreadable"


class OutputError(LavpsError):
    """A result cannot be written."""

    exit_code = 4
    code = "unwritable"


class WeightsError(LavpsError):
    """Weights are missing, damaged or made for something else."""

    exit_code = 5
    code = "weights"


class DeviceError(LavpsError):
    """The device is absent or out of memory."""

    exit_code = 6
    code = "device"


def near(name: str, known: Sequence[str]) -> str:
    """Return a hint for a name that is not known: the nearest one; empty where none is near."""
    found = get_close_matches(name, known, n=1)
    return f"Did you mean {found[0]}?" if found else ""


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return a hint for a name that is not known: the nearest one, or all of them."""
    return near(name, known) or f"Choose from: {', '.join(known)}"
