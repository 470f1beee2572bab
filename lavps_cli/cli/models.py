"""lavps models: list, info, path, download, import, push."""

from typing import Annotated

import typer

from lavps_cli.cli import params
from lavps_cli.cli.commands import Command, Group
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import json_line

models = typer.Typer(
    cls=Group,
    help="Which weights and samplers there are.",
    epilog="Example:  lavps models info default",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model.")]


@models.command("list", cls=Command, epilog="Example:  lavps models list --samplers")
@reported
def list_models(
    samplers: Annotated[
        bool, typer.Option("--samplers", help="List the samplers and their options instead.")
    ] = False,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="List public priors that can be loaded instead.")
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
    if elsewhere:
        for known in listing.ELSEWHERE:
            if as_json:
                json_line({"type": "elsewhere"} | asdict(known))
                continue
            size = "" if known.megabytes is None else f"{known.megabytes:g} MB"
            typer.echo(
                f"{known.name:<34} {known.image_size}  {size:<7} {known.licence:<11} "
                f"{known.about}; {known.source}"
            )
        return
    for model in listing.models():
        if as_json:
            json_line({"type": "model"} | asdict(model))
        else:
            typer.echo(
                f"{model.name:<28} {model.kind:<10} {model.megabytes:>7} MB  {model.licence}"
            )


@models.command("info", cls=Command, epilog="Example:  lavps models info default")
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


@models.command("path", cls=Command, epilog="Example:  ls $(lavps models path default)")
@reported
def path(name: Name) -> None:
    """Print the folder of one model."""
    from lavps_cli.pipeline import listing

    typer.echo(listing.model_path(name))


@models.command(
    "import", cls=Command, epilog="Example:  lavps models import hdit-ffhq256-unconditional.pt"
)
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
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="For --model from now on; the file's if not said."
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Write this folder instead.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="NAME", help="Of the weights.")
    ] = None,
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


@models.command(
    "download", cls=Command, epilog="Example:  lavps models download google/ddpm-ema-church-256"
)
@reported
def download(
    repo: Annotated[
        str, typer.Argument(metavar="USER/REPO[@REV]", help="A repository of the Hugging Face Hub.")
    ],
    as_json: params.Json = False,
) -> None:
    """Fetch a model of the Hub into the cache, or see whether there is a newer one."""
    from lavps_cli.pipeline import listing

    found = listing.download(repo)
    if as_json:
        json_line({"type": "download"} | found)
        return
    typer.echo(found["path"])


@models.command(
    "push", cls=Command, epilog="Example:  lavps models push runs/mine me/deblur --public"
)
@reported
def push(
    name: Name,
    repo: Annotated[str, typer.Argument(metavar="USER/REPO", help="Where to.")],
    public: Annotated[
        bool, typer.Option("--public", help="Everyone may read it; else only you.")
    ] = False,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit.")
    ] = None,
    records: Annotated[
        list[str] | None,
        typer.Option("--records", metavar="DIR", help="A benchmark that the card sums up."),
    ] = None,
    as_json: params.Json = False,
) -> None:
    """Upload a model with its card to the Hugging Face Hub (HF_TOKEN, or `hf auth login`)."""
    from dataclasses import asdict

    from lavps_cli.pipeline import publishing

    found = publishing.publish(
        name, repo, public=public, message=message, records=tuple(records or ())
    )
    if as_json:
        json_line({"type": "push"} | asdict(found))
        return
    typer.echo(found.url)
