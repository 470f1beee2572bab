"""Outcomes to stdout, failures to stderr, and the exit code of it all."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from lavps_cli.cli.errors import error_text
from lavps_cli.cli.output import json_line
from lavps_cli.cli.progress import Terminal

if TYPE_CHECKING:
    from lavps_cli.pipeline.results import Outcome


def report(outcomes: "Iterable[Outcome]", terminal: Terminal, *, as_json: bool) -> int:
    """Tell every outcome as it comes and return the exit code."""
    from lavps_cli.pipeline.results import Failure, Summary

    summary = Summary()
    for outcome in outcomes:
        summary.add(outcome)
        terminal.clear()
        if isinstance(outcome, Failure):
            terminal.error(error_text(outcome.error))
        if as_json:
            json_line(outcome.told)
        elif not isinstance(outcome, Failure):
            if outcome.status == "ok" and outcome.output != "-":
                typer.echo(outcome.output)
            elif outcome.status == "planned":
                terminal.note(f"{outcome.input} -> {outcome.output}: {outcome.plan}")
    if summary.text:
        terminal.note(summary.text)
    return summary.exit_code
