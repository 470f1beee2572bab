"""lavps config."""

import json
import os
from typing import Annotated, Any

import typer

from lavps_cli.cli import params
from lavps_cli.cli.commands import Command, Group
from lavps_cli.cli.configuration import COMMANDS, OWN, Setting, files, options_of, settings_of
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import json_line
from lavps_cli.cli.trust import Value
from lavps_cli.errors import OutputError, UsageError, suggestion
from lavps_cli.folders import config_folder

config = typer.Typer(cls=Group, no_args_is_help=True, help="What files and variables set.")

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="COMMAND",
        help="With all its options; all commands if not said.",
        show_default=False,
        autocompletion=lambda: list(COMMANDS),
    ),
]


@config.command("show", cls=Command)
@reported
def show(
    command: Name = None,
    chosen: params.ConfigFile = None,
    as_json: params.Json = False,
) -> None:
    """Tell what options are set to, and where: as TOML that can be a file of its own.

    Of one command all options are shown, with their defaults.
    """
    if command is not None and command not in COMMANDS:
        raise UsageError(f"lavps {command} has no settings.", suggestion(command, list(COMMANDS)))
    from lavps_cli.cli.main import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    told = {
        name: settings_of(commands, name, chosen, os.environ)
        for name in ((command,) if command else COMMANDS)
    }
    if as_json:
        read = [str(file.path) for file in files(chosen, os.environ)]
        options = {
            name: {
                key: {"value": each.value, "source": each.source}
                for key, each in _all(commands[name], settings).items()
            }
            for name, settings in told.items()
        }
        json_line({"type": "config", "files": read, "options": options})
        return
    for name, settings in told.items():
        if settings or command:
            typer.echo(f"[{name}]")
            shown = _all(commands[name], settings) if command else settings
            for key, each in shown.items():
                typer.echo(_line(key, each))


@config.command("path", cls=Command)
@reported
def path() -> None:
    """Print where your own file lies, whether or not there is one."""
    typer.echo(config_folder() / OWN)


@config.command("init", cls=Command)
@reported
def init() -> None:
    """Write your own file, with every option at its default and commented out."""
    from lavps_cli.cli.main import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = ["# Options of lavps; take away the # before what is to be set."]
    for name in COMMANDS:
        lines += ["", f"[{name}]"]
        for key, option in options_of(commands[name]).items():
            lines += [f"# {_shown(key, _default(option))}"]
    place = config_folder() / OWN
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("x", encoding="utf-8") as file:  # Never over what somebody wrote.
            file.write("\n".join(lines) + "\n")
    except FileExistsError as error:
        raise OutputError(f"{place} exists.", "Edit it, or move it away.") from error
    except OSError as error:
        raise OutputError(
            f"{place} cannot be written: {error.strerror}.", "Set XDG_CONFIG_HOME to a folder."
        ) from error
    typer.echo(place)


def _all(command: Any, settings: dict[str, Setting]) -> dict[str, Setting]:
    """Return every option, with its default where nothing is said."""
    return {
        key: settings.get(key) or Setting(_default(option), "default")
        for key, option in options_of(command).items()
    }


def _default(option: Any) -> Value | None:
    value: Any = option.default
    return list(value) if isinstance(value, tuple) else value


def _shown(key: str, value: Value | None) -> str:
    """Return a line of TOML; of what is unset, the name alone."""
    if value is None:
        return f"{key} ="
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key} = {text}"


def _line(key: str, setting: Setting) -> str:
    unset = "# " if setting.value is None else ""
    return f"{unset}{_shown(key, setting.value)}  # {setting.source}"
