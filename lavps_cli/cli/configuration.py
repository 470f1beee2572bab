"""Options from elsewhere than the command line: `lavps.toml`, `--config`, variables."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lavps_cli.cli.setting_values import from_toml, from_variable
from lavps_cli.cli.trust import Value, check_harmless
from lavps_cli.errors import UsageError, suggestion
from lavps_cli.folders import config_folder

COMMANDS = ("restore", "degrade", "evaluate", "benchmark", "calibrate-speedup", "train")
HERE, OWN, CHOSEN, NONE = "lavps.toml", "config.toml", "LAVPS_CONFIG", "none"
_SOURCES = "lavps.sources"
_MOST_BYTES = 1 << 20
_context: ContextVar[Any] = ContextVar("_context", default=None)
"""Of the command that runs, so that errors can tell where a value was said."""


@dataclass(frozen=True)
class Setting:
    """One option's value, and where it was said; None is unset."""

    value: Value | None
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
        chosen: `--config`; `none` is no file at all.
        environ: Variables.

    Raises:
        UsageError: A file that was asked for is not there.
    """
    name = chosen or environ.get(CHOSEN)
    if name == NONE:
        return []
    if name and not _is_file(Path(name)):
        option = "--config" if chosen else CHOSEN
        raise UsageError(f"{option} {name}: there is no such file.", "Check the path.")
    found = []
    own = _own()
    if own is not None and _is_file(own):
        found.append(ConfigFile(own, str(own), trusted=True))
    here = Path(HERE)
    # One that was chosen by name is trusted, also where it would have been found.
    if _is_file(here) and not any(here.samefile(p) for p in (own, name) if p and _is_file(Path(p))):
        found.append(ConfigFile(here, f"./{HERE}", trusted=False))
    if name:
        found.append(ConfigFile(Path(name), name, trusted=True))
    return found


def _own() -> Path | None:
    """Return the place of the user's own file; a user without a home has none."""
    try:
        return config_folder() / OWN
    except RuntimeError:
        return None


def _is_file(path: Path) -> bool:
    """Return whether a file can be seen there: homes of others are closed."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


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
    _check_commands(environ)
    command = commands[name]
    options = options_of(command)
    prefix = _prefix(name)
    for variable in sorted(v for v in environ if v.startswith(prefix) and environ[v]):
        key = variable.removeprefix(prefix).lower().replace("_", "-")
        if key not in options:
            names = [prefix + option.upper().replace("-", "_") for option in options]
            raise UsageError(
                f"{variable}: lavps {name} has no such option.", suggestion(variable, names)
            )
        found[key] = Setting(
            from_variable(command, options[key], environ[variable], variable), variable
        )
    return found


def _prefix(command: str) -> str:
    return f"LAVPS_{command.upper().replace('-', '_')}_"


def _check_commands(environ: Mapping[str, str]) -> None:
    """Refuse variables whose command is nearly one of those; others may be anybody's.

    Raises:
        UsageError: There is one.
    """
    prefixes = [_prefix(command) for command in COMMANDS]
    for variable in environ:
        word = re.match(r"LAVPS_[A-Z]+_", variable)
        if word and not variable.startswith(tuple(prefixes)):
            near = get_close_matches(word[0], prefixes, n=1, cutoff=0.85)
            if near:
                raise UsageError(
                    f"{variable}: there is no such command.", f"Did you mean {near[0]}...?"
                )


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
    _context.set(context)
    commands: Mapping[str, Any] = context.find_root().command.commands
    settings = settings_of(commands, name, chosen, os.environ)
    options = options_of(commands[name])
    context.default_map = {options[key].name: each.value for key, each in settings.items()}
    context.meta[_SOURCES] = {
        key: (options[key].name, each.source) for key, each in settings.items()
    }
    return chosen


def where_said(message: str) -> list[str]:
    """Return lines that tell where options were set that a message speaks of."""
    context = _context.get()
    sources: dict[str, tuple[str, str]] = {} if context is None else context.meta.get(_SOURCES, {})
    lines = []
    for key, (name, source) in sources.items():
        said = context.get_parameter_source(name)
        mentioned = re.search(rf"--{re.escape(key)}(?![\w-])", message)
        if mentioned and said is not None and said.name == "DEFAULT_MAP":
            lines.append(f"--{key} is set in {source}.")
    return lines


def _checked(file: ConfigFile, commands: Mapping[str, Any]) -> Iterator[tuple[str, str, Value]]:
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
            shaped = from_toml(commands[table], options[key], value, where)
            if not file.trusted:
                check_harmless(key, shaped, where, HERE)
            yield table, key, shaped


def _read(file: ConfigFile) -> dict[str, Any]:
    try:
        if file.path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{file.label} has more than a MiB.", "Is it a configuration?")
        return tomllib.loads(file.path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.label} is no UTF-8.", "TOML is written in UTF-8.") from error
    except (ValueError, RecursionError) as error:  # Not all are tomllib's own: too many digits.
        raise UsageError(
            f"{file.label} is no TOML: {error}.", 'For example:  [restore]  device = "cuda"'
        ) from error
    except OSError as error:
        raise UsageError(
            f"{file.label} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
