"""lavps models: list, info, path, import."""

from typing import Annotated

import typer

from lavps_cli.cli import params
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import json_line

models = typer.Typer(
    help="Which weights and samplers there are.",
    epilog="Example:  lavps models info default",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model.")]


@models.command("list", epilog="Example:  lavps models list --samplers")
@reported
def list_models(
    samplers: Annotated[
        bool, typer.Option("--samplers", help="List the samplers and their options instead.")
    ] = False,
    as_json: params.Json = False,
) -> None:
    """List what can be used by name."""
    from dataclasses import asdict

    from lavps_cli.pipeline import listing

    if samplers:
        for sampler in listing.samplers():
            if as_json:
                json_line({"type": "sampler"} | asdict(sampler))
                continue
            typer.echo(f"{sampler.name:<12} {sampler.summary}")
            for name, default in sampler.options.items():
                typer.echo(f"{'':<12}   -O {name}={default}")
        return
    for model in listing.models():
        if as_json:
            json_line({"type": "model"} | asdict(model))
        else:
            typer.echo(
                f"{model.name:<28} {model.kind:<10} {model.megabytes:>7} MB  {model.licence}"
            )


@models.command("info", epilog="Example:  lavps models info default")
@reported
def info(name: Name, as_json: params.Json = False) -> None:
    """Tell everything about one model: training data, licence, digest."""
    from lavps_cli.pipeline import listing

    about = listing.model_info(name)
    if as_json:
        json_line({"type": "model"} | about)
        return
    for key, value in about.items():
        typer.echo(f"{key:<16} {value}")


@models.command("path", epilog="Example:  ls $(lavps models path default)")
@reported
def path(name: Name) -> None:
    """Print the folder of one model."""
    from lavps_cli.pipeline import listing

    typer.echo(listing.model_path(name))


@models.command("import", epilog="Example:  lavps models import hdit-ffhq256-unconditional.pt")
@reported
def import_model(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A file of another project, one of its pieces, or a folder.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="For --model from now on; the file's if not said.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Write this folder instead.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Of the weights.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: params.Json = False,
) -> None:
    """Convert weights of another project, once; nothing in the file is run."""
    from dataclasses import asdict

    from lavps_cli.pipeline import importing

    found = importing.import_model(source, name=name, output=output, licence=licence, force=force)
    if as_json:
        json_line({"type": "import"} | asdict(found))
        return
    typer.echo(found.path)
