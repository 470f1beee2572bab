"""Values of TOML and of variables to what an option takes, checked as the command line is."""

import math
from typing import Any

import typer

from lavps_cli.cli.trust import Value
from lavps_cli.cli.usage import expected
from lavps_cli.errors import UsageError

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
          dict: "a table"}  # fmt: skip


def from_toml(command: Any, option: Any, value: Any, where: str) -> Value:
    """Return a value of TOML as the option takes it.

    Args:
        command: The option's, by position: its type is Typer's own.
        option: Likewise.
        value: Of a line.
        where: What messages call the line.

    Raises:
        UsageError: It is of another type, or not among what is allowed.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(
                f"{where} is {_kind(value)}.", "Write true or false, without quotation marks."
            )
        return value
    if option.multiple:
        if isinstance(value, dict):
            value = [f"{name}={_text(each, where)}" for name, each in value.items()]
        texts = value if isinstance(value, list) else [value]
        return checked(command, option, [_text(each, where) for each in texts], where)
    if isinstance(value, bool):
        raise UsageError(
            f"{where} is {str(value).lower()}, and --{option.opts[-1].lstrip('-')} takes a value.",
            "Leave the line out for the default.",
        )
    if isinstance(value, list):  # Lists of the command line are separated by commas.
        value = ",".join(_text(each, where) for each in value)
    return checked(command, option, _text(value, where), where)


def from_variable(command: Any, option: Any, text: str, variable: str) -> Value:
    """Return the value of a variable as the option takes it.

    Args:
        command: The option's, by position: its type is Typer's own.
        option: Likewise; what may be repeated is separated by spaces.
        text: The variable's value.
        variable: Its name.

    Raises:
        UsageError: It is not among what is allowed.
    """
    return checked(command, option, text.split() if option.multiple else text, variable)


def checked(command: Any, option: Any, value: str | list[str], where: str) -> Value:
    """Return what Typer makes of a value.

    Raises:
        UsageError: Typer refuses it, or it is no finite number.
    """
    try:
        result = option.process_value(typer.Context(command), value)
    except typer.BadParameter as error:
        _, reason, meant = expected(error)
        raise UsageError(
            f"{where} = {value!r}: {reason}.",
            meant or f"What is allowed:  lavps {command.name} --help",
        ) from error
    if isinstance(result, float) and not math.isfinite(result):
        raise UsageError(f"{where} = {value!r} is no finite number.", "Give another.")
    return list(result) if isinstance(result, list | tuple) else result


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | str) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    raise UsageError(
        f"{where}: {_kind(value)} is no value of an option.",
        "Allowed are texts, numbers, true, false and lists of them.",
    )


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")
