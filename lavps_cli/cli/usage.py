"""What Typer says of a wrong command line, in the words of this program."""

from typing import Any

import typer

from lavps_cli.errors import UsageError, near

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_parsing": "a number",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
}
"""What was expected, by the kind of mistake."""


def in_words(error: typer.TyperException) -> UsageError:
    """Return what is wrong with a command line, and what to do next."""
    context = getattr(error, "ctx", None)
    program = "lavps" if context is None else context.command_path
    hint = f"All options:  {program if context is not None else 'lavps COMMAND'} --help"
    option = getattr(error, "option_name", None)
    param = getattr(error, "param", None)
    message = error.format_message().strip()
    if message.startswith("No such command"):
        wrong = message.split("'")[1]
        known = list(getattr(getattr(context, "command", None), "commands", ()))
        return UsageError(f"{program} has no command {wrong}.", near(wrong, known) or hint)
    if option is not None and message.startswith("No such option"):
        flags = _flags(context)
        return UsageError(f"{program} has no option {option}.", near(option, flags) or hint)
    if option is not None and "requires an argument" in message:
        return UsageError(f"{option} takes a value, and there is none.", hint)
    if option is not None and "does not take a value" in message:
        return UsageError(f"{option} takes no value.", f"Write:  {option}")
    if param is not None and not getattr(error, "message", ""):
        return UsageError(f"{program}: {param.metavar or param.name} is missing.", hint)
    if param is not None:
        name = max(param.opts, key=len) if param.param_type_name == "option" else param.name
        value, reason, meant = expected(error)
        said = name if value == "" else f"{name} {value}"
        return UsageError(f"{said}: {reason}.", meant or hint)
    return UsageError(message, hint)


def expected(error: typer.TyperException) -> tuple[Any, str, str]:
    """Return a value, what is wrong with it, and what may have been meant, if that is known.

    Args:
        error: Of a value that Typer refuses.
    """
    mistakes = getattr(error.__cause__, "errors", None)
    if mistakes is None:
        return "", str(getattr(error, "message", error)).rstrip("."), ""
    first: dict[str, Any] = mistakes()[0]
    value, kind, about = first.get("input"), first.get("type", ""), first.get("ctx", {})
    if kind in _EXPECTED:
        return value, f"expected {_EXPECTED[kind].format(**about)}", ""
    reason = str(about.get("error", first.get("msg", ""))).rstrip(".")
    if " is not one of " in reason:
        known = reason.partition(" is not one of ")[2].split("'")[1::2]
        return value, f"expected one of {', '.join(known)}", near(str(value), known)
    return value, reason, ""


def _flags(context: Any) -> list[str]:
    """Return the options of a command."""
    command = getattr(context, "command", None)
    return [flag for param in getattr(command, "params", ()) for flag in param.opts]
