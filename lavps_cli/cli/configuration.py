"""Options from elsewhere than the command line: `lavps.toml`, `--config`, variables."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from lavps_cli.errors import UsageError, suggestion
from lavps_cli.folders import config_folder

COMMANDS = ("restore", "degrade", "evaluate", "benchmark", "calibrate-speedup", "train")
HERE, OWN, CHOSEN = "lavps.toml", "config.toml", "LAVPS_CONFIG"
_SOURCES = "lavps.sources"
_MOST_BYTES = 1 << 20
_WRITES = {"output", "uncertainty", "journal", "report", "save-mask", "html", "plot", "kernel-out"}
"""Options that name what is written."""
_LEAVES = {"push", "public"}
"""Options by which something leaves this machine."""


@dataclass(frozen=True)
class Setting:
    """One option's value as a command line would have it, and where it was said; None is unset."""

    value: bool | str | list[str] | None
    source: str


@dataclass(frozen=True)
class ConfigFile:
    """One file of settings."""

    path: Path
    label: str
    trusted: bool
    """Whether it was chosen by the user, not found in a folder that may be somebody's."""


def files(chosen: str | None, environ: Mapping[str, str]) -> list[ConfigFile]:
    """Return the files that count, what comes later wins.

    Args:
        chosen: `--config`.
        environ: Variables.

    Raises:
        UsageError: A file that was asked for is not there.
    """
    own = config_folder() / OWN
    found = [ConfigFile(own, str(own), trusted=True)] if own.is_file() else []
    if Path(HERE).is_file():
        found.append(ConfigFile(Path(HERE), f"./{HERE}", trusted=False))
    name = chosen or environ.get(CHOSEN)
    if name:
        if not Path(name).is_file():
            option = "--config" if chosen else CHOSEN
            raise UsageError(f"{option} {name}: there is no such file.", "Check the path.")
        found.append(ConfigFile(Path(name), name, trusted=True))
    return found


def settings_of(
    commands: Mapping[str, Any], name: str, chosen: str | None, environ: Mapping[str, str]
) -> dict[str, Setting]:
    """Return what files and variables say about a command, by option.

    Every file is checked whole, so that a slip shows at once.

    Args:
        commands: All commands by name.
        name: The command.
        chosen: `--config`.
        environ: Variables.

    Raises:
        UsageError: A file or variable is wrong; the message tells which and where.
    """
    found: dict[str, Setting] = {}
    for file in files(chosen, environ):
        for table, key, value in _checked(file, commands):
            if table == name:
                found[key] = Setting(value, file.label)
    options = options_of(commands[name])
    prefix = f"LAVPS_{name.upper().replace('-', '_')}_"
    for variable in sorted(v for v in environ if v.startswith(prefix) and environ[v]):
        key = variable.removeprefix(prefix).lower().replace("_", "-")
        if key not in options:
            names = [prefix + option.upper().replace("-", "_") for option in options]
            raise UsageError(
                f"{variable}: lavps {name} has no such option.", suggestion(variable, names)
            )
        text = environ[variable]
        found[key] = Setting(text.split() if options[key].multiple else text, variable)
    return found


def options_of(command: Any) -> dict[str, Any]:
    """Return the options of a command that can be set from elsewhere, by their long names."""
    return {
        flag[2:]: param
        for param in command.params
        if param.param_type_name == "option" and param.name not in ("config", "help")
        for flag in param.opts
        if flag.startswith("--")
    }


def configure(context: Any, chosen: str | None) -> str | None:
    """Have a command's options default to what files and variables say.

    Args:
        context: Of the command, by position: its type is Typer's own.
        chosen: `--config`.

    Raises:
        UsageError: One of them is wrong.
    """
    name = context.info_name
    if context.resilient_parsing or name not in COMMANDS:
        return chosen
    commands: Mapping[str, Any] = context.find_root().command.commands
    settings = settings_of(commands, name, chosen, os.environ)
    options = options_of(commands[name])
    context.default_map = {options[key].name: each.value for key, each in settings.items()}
    context.meta[_SOURCES] = {options[key].name: each.source for key, each in settings.items()}
    return chosen


def source_of(context: Any, name: str) -> str | None:
    """Return where an option's value was said, None for the command line and defaults."""
    source = context.get_parameter_source(name)
    if source is None or source.name != "DEFAULT_MAP":
        return None
    sources: dict[str, str] = context.meta.get(_SOURCES, {})
    return sources.get(name)


def _checked(
    file: ConfigFile, commands: Mapping[str, Any]
) -> Iterator[tuple[str, str, bool | str | list[str]]]:
    """Yield command, option and value of every line of a file."""
    for table, values in _read(file).items():
        if table not in COMMANDS:
            raise UsageError(
                f"{file.label}: {table} is no command with options.",
                suggestion(table, [f"[{name}]" for name in COMMANDS]),
            )
        if not isinstance(values, dict):
            raise UsageError(f"{file.label}: {table} is no table.", f"Write:  [{table}]")
        options = options_of(commands[table])
        for written, value in values.items():
            key = written.replace("_", "-")
            if key not in options:
                raise UsageError(
                    f"{file.label}: [{table}] has no option {written!r}.",
                    suggestion(key, list(options)),
                )
            where = f"{file.label}: [{table}] {written}"
            shaped = _shaped(options[key], value, where)
            if not file.trusted:
                _check_harmless(key, shaped, where)
            yield table, key, shaped


def _read(file: ConfigFile) -> dict[str, Any]:
    try:
        if file.path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{file.label} has more than a MiB.", "Is it a configuration?")
        return tomllib.loads(file.path.read_text())
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.label} is no UTF-8.", "TOML is written in UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f"{file.label} is no TOML: {error}.", 'For example:  [restore]  device = "cuda"'
        ) from error
    except OSError as error:
        raise UsageError(
            f"{file.label} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error


def _shaped(option: Any, value: Any, where: str) -> bool | str | list[str]:
    """Return a value of TOML as the command line would give it."""
    if isinstance(value, dict) and option.multiple:
        value = [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        return [str(value)] if option.multiple else str(value)
    if isinstance(value, list) and all(isinstance(v, int | float | str) for v in value):
        texts = [str(each) for each in value]
        return texts if option.multiple else ",".join(texts)
    raise UsageError(
        f"{where}: a {type(value).__name__} is no value of an option.",
        "Allowed are texts, numbers, true, false and lists of them.",
    )


def _check_harmless(key: str, value: bool | str | list[str], where: str) -> None:
    """Refuse what a file that came with somebody's pictures must not decide.

    Raises:
        UsageError: It would run code, write elsewhere, or send something away.
    """
    texts = value if isinstance(value, list) else [str(value)]
    what = None
    if any(".py:" in text for text in texts):
        what = "would run a program"
    elif key in _LEAVES:
        what = "would send something away"
    elif key in _WRITES and any(_leads_away(text) for text in texts):
        what = "would write outside this folder"
    if what is not None:
        raise UsageError(
            f"{where} {what}, which a file found in a folder may not.",
            f"If you trust it:  --config {HERE}",
        )


def _leads_away(text: str) -> bool:
    return PurePath(text).is_absolute() or ".." in PurePath(text).parts or "://" in text
