"""Errors as text: what, then what to do; never a traceback for what the user can act on."""

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import NoReturn, ParamSpec, TypeVar

import typer

from lavps_cli.cli.configuration import where_said
from lavps_cli.cli.usage import in_words
from lavps_cli.errors import LavpsError, OutputError, UsageError

P = ParamSpec("P")
R = TypeVar("R")

BROKEN_PIPE = 141
INTERRUPTED = 130
TERMINATED = 143
_LONG = 200
"""A longer name is told in parts."""


def say(text: str) -> None:
    """Write one line to stderr, where everything that is not a result goes."""
    with contextlib.suppress(BrokenPipeError):
        typer.echo(text, err=True)


def error_text(error: LavpsError) -> str:
    """Return the lines that tell an error."""
    label = "usage error" if isinstance(error, UsageError) else "error"
    lines = [f"{label}: {error.message}"]
    lines += [f"  {line}" for line in where_said(error.message) + error.hint.splitlines()]
    return "\n".join(lines)


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what a command raises into a message and an exit code."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except LavpsError as error:
            say(error_text(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            if kwargs.get("verbose"):
                say(traceback.format_exc())
            if (refused := _of_system(error)) is not None:
                say(error_text(refused))
                raise typer.Exit(refused.exit_code) from None
            say(f"error: this is a bug in lavps: {type(error).__name__}: {error}")
            say("  Report it with the output of:  lavps doctor      Details:  -v")
            raise typer.Exit(1) from None

    return wrapper


def _of_system(error: Exception) -> LavpsError | None:
    """Return what the machine refused and nothing below has told: a name, a disk, a number."""
    if isinstance(error, OverflowError):
        return UsageError(f"a number is too large: {error}.", "Give a smaller one.")
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return OutputError("no name of a file may hold a NUL.", "Leave it out.")
    if not isinstance(error, OSError):
        return None
    name = "" if error.filename is None else f"{_short(os.fsdecode(error.filename))}: "
    return OutputError(
        f"{name}{error.strerror or error}.", "Check the path, its permissions and the disk."
    )


def _short(name: str) -> str:
    return name if len(name) < _LONG else f"{name[: _LONG // 2]}...{name[-_LONG // 4 :]}"


def _silence_stdout() -> None:
    """Keep the interpreter from flushing into a closed pipe on its way out."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(app: typer.Typer) -> NoReturn:
    """Run the application as a program."""
    signal.signal(signal.SIGTERM, _terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # Names come out as the bytes they are.
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except LavpsError as error:  # Before the command began: of its settings.
        say(error_text(error))
        code = error.exit_code
    except typer.TyperException as error:
        code = error.exit_code
        if error.format_message():
            say(error_text(in_words(error)))
        else:  # Nothing was asked, and the help is printed.
            code = 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        code = BROKEN_PIPE
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind, so that unfinished files are removed."""
    raise SystemExit(TERMINATED)
