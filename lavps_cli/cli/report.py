"""Outcomes to stdout, failures to stderr, and the exit code of it all."""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lavps_cli.cli.errors import error_text
from lavps_cli.cli.output import json_line
from lavps_cli.cli.progress import Terminal

if TYPE_CHECKING:
    from lavps_cli.pipeline.results import Outcome


def report(
    outcomes: "Iterable[Outcome]",
    terminal: Terminal,
    *,
    as_json: bool,
    print0: bool = False,
    document: str | None = None,
) -> int:
    """Tell every outcome as it comes and return the exit code.

    Args:
        outcomes: Of the pictures.
        terminal: For what is no result.
        as_json: Whether stdout gets objects, else paths.
        print0: Whether NUL comes after a path, not the end of a line.
        document: File for everything, written at the end.

    Raises:
        OutputError: That file cannot be written.
    """
    from lavps_cli.images.writing import check_target, write_atomic
    from lavps_cli.pipeline.results import Failure, Summary

    if document is not None:
        check_target(Path(document))
    summary, told = Summary(), list[dict[str, Any]]()
    started = time.monotonic()
    for outcome in outcomes:
        summary.add(outcome)
        if document is not None:
            told.append(outcome.told)
        terminal.clear()
        if isinstance(outcome, Failure):
            terminal.error(error_text(outcome.error))
        if as_json:
            json_line(outcome.told)
        elif not isinstance(outcome, Failure):
            if outcome.status == "ok" and outcome.output != "-":
                typer.echo(outcome.output + ("\0" if print0 else "\n"), nl=False)
                sys.stdout.flush()
            elif outcome.status == "planned":
                terminal.note(f"{outcome.input} -> {outcome.output}: {outcome.plan}")
    if summary.text:
        terminal.note(summary.text)
    if document is not None:
        seconds = round(time.monotonic() - started, 3)
        head = {"schema": 1, "type": "report", "seconds": seconds} | summary.told
        text = json.dumps(head | {"results": told}, indent=1)
        write_atomic(Path(document), text.encode())
    return summary.exit_code
