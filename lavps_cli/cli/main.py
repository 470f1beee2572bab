"""The `lavps` program."""

from typing import Annotated, NoReturn

import typer

from lavps_cli import __version__
from lavps_cli.cli import (
    benchmark,
    calibrate,
    config,
    degrade,
    doctor,
    evaluate,
    models,
    params,
    restore,
    train,
)
from lavps_cli.cli.commands import Command, Group
from lavps_cli.cli.errors import run
from lavps_cli.cli.progress import set_loudness

EPILOG = """
lavps restore old.jpg --scale 4 : enlarge

lavps restore input.png --task deblur --kernel 21 : remove motion blur

lavps restore scan.png --mask scratch.png : fill the white part of the mask

cat in.png | lavps restore - --task denoise > out.png
"""

app = typer.Typer(
    name="lavps",
    cls=Group,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    epilog=EPILOG,
)
app.command("restore", cls=Command, rich_help_panel="Restore", epilog=restore.EPILOG)(
    restore.restore
)
app.command("degrade", cls=Command, rich_help_panel="Restore", epilog=degrade.EPILOG)(
    degrade.degrade
)
app.command("evaluate", cls=Command, rich_help_panel="Restore", epilog=evaluate.EPILOG)(
    evaluate.evaluate
)
app.command("benchmark", cls=Command, rich_help_panel="Measure", epilog=benchmark.EPILOG)(
    benchmark.benchmark
)
app.command("calibrate-speedup", cls=Command, rich_help_panel="Measure", epilog=calibrate.EPILOG)(
    calibrate.calibrate_speedup
)
app.command("train", cls=Command, rich_help_panel="Train", epilog=train.EPILOG)(train.train)
app.add_typer(models.models, name="models", rich_help_panel="Manage")
app.add_typer(config.config, name="config", rich_help_panel="Manage")
app.command("doctor", cls=Command, rich_help_panel="Manage", epilog=doctor.EPILOG)(doctor.doctor)


def _version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"lavps {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
) -> None:
    """Restore damaged pictures by sampling from a diffusion prior."""
    set_loudness(quiet=quiet, verbose=verbose)


def main() -> NoReturn:
    """Run the program."""
    run(app)
