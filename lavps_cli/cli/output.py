"""stdin and stdout: paths, JSON lines or one picture, and nothing else."""

import contextlib
import json
import os
import sys
from typing import Any, BinaryIO

import typer

from lavps_cli.errors import UsageError


def json_line(values: dict[str, Any]) -> None:
    """Print one JSON object; in ASCII escapes where a name is no Unicode."""
    text = json.dumps({"schema": 1} | values, ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps({"schema": 1} | values)
    typer.echo(text)
    sys.stdout.flush()


def read_stdin() -> bytes:
    """Return everything on stdin.

    Raises:
        UsageError: It is a terminal.
    """
    if sys.stdin.isatty():
        raise UsageError(
            "- reads a picture from stdin, which is a terminal.",
            "Pipe one in:  cat in.png | lavps restore -   or name a file",
        )
    return sys.stdin.buffer.read()


def write_stdout(content: bytes) -> None:
    """Write a picture to stdout, whole, also where stdout is not buffered."""
    sys.stdout.flush()
    with _binary_stdout() as stream:
        stream.write(content)
        stream.flush()


def _binary_stdout() -> contextlib.AbstractContextManager[BinaryIO]:
    try:
        return os.fdopen(sys.stdout.fileno(), "wb", closefd=False)
    except (OSError, AttributeError):  # Not a file: a test's stand-in.
        return contextlib.nullcontext(sys.stdout.buffer)


def chosen_output(inputs: list[str], output: str | None, as_json: bool) -> str | None:
    """Return `-o`, or stdout for a picture from stdin.

    Raises:
        UsageError: A picture would meet JSON or a terminal on stdout.
    """
    if output is None and inputs == ["-"]:
        if sys.stdout.isatty():
            raise UsageError(
                "stdout is a terminal.", "Write a file:  -o out.png   or pipe it:  | cat > out.png"
            )
        output = "-"
    if output != "-":
        return output
    if as_json:
        raise UsageError(
            "-o - and --json both want stdout.", "Use:  --report FILE.json   or -o out.png"
        )
    if sys.stdout.isatty():
        raise UsageError("stdout is a terminal; a picture would garble it.", "Use:  -o out.png")
    return output
