"""lavps doctor."""

import typer

from lavps_cli.cli import params
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import json_line

EPILOG = "Example:  lavps doctor --json"


@reported
def doctor(as_json: params.Json = False) -> None:
    """Tell what is installed, and try every device.

    Exits with 1 only if `lavps restore` cannot run as it comes.
    """
    from dataclasses import asdict

    from lavps_cli.pipeline.doctor import diagnose

    found = diagnose()
    if as_json:
        json_line({"type": "doctor"} | asdict(found))
        raise typer.Exit(0 if found.ok else 1)
    for name, version in found.versions.items():
        typer.echo(f"{name:<12} {version}")
    writes = ", ".join(name for name, good in found.formats.items() if good)
    typer.echo(f"{'writes':<12} {writes}")
    here = [name for name, good in found.extras.items() if good]
    missing = [name for name, good in found.extras.items() if not good]
    typer.echo(f"{'extras':<12} {', '.join(here) or 'none'}")
    if missing:
        names = ",".join(missing)
        typer.echo(
            f"{'':<12} not installed: {', '.join(missing)}. To get them:  "
            f'pip install "lavps[{names}]"'
        )
    for name, folder in found.models.items():
        typer.echo(f"{'model':<12} {name}  {folder}")
    typer.echo(f"{'LPIPS':<12} {found.lpips}")
    for calibration in found.calibrations:
        typer.echo(f"{'calibrated':<12} {calibration}")
    for device in found.devices:
        memory = f", {device.memory_gb} GB" if device.memory_gb is not None else ""
        state = f"ok, {device.dtype}, {device.seconds} s" if device.ok else device.problem
        typer.echo(f"{'device':<12} {device.name} ({device.about}{memory}): {state}")
    terminal = ", ".join(f"{name} {value}" for name, value in found.terminal.items())
    typer.echo(f"{'terminal':<12} {terminal}")
    raise typer.Exit(0 if found.ok else 1)
