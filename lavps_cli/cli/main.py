"""The `lavps` program."""

from typing import Annotated, NoReturn

import typer

from lavps_cli import __version__
from lavps_cli.cli import degrade, restore
from lavps_cli.cli.errors import run

EPILOG = """
lavps restore old.jpg --scale 4 : enlarge

lavps restore input.png --task deblur --kernel 21 : remove motion blur

lavps restore scan.png --mask scratch.png : fill the white part of the mask

cat in.png | lavps restore - --task denoise > out.png
"""

app = typer.Typer(
    name="lavps",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog=EPILOG,
)
app.command("restore", rich_help_panel="Restore", epilog=restore.EPILOG)(restore.restore)
app.command("degrade", rich_help_panel="Restore", epilog=degrade.EPILOG)(degrade.degrade)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lavps {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Restore damaged pictures by sampling from a diffusion prior."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the program."""
    run(app)
