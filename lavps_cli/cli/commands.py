"""Commands whose help names the values of options, and says nothing where there are none."""

from typing import Any

import typer


def _nothing(ctx: Any) -> None:
    """Return no type."""


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = _nothing  # Its name tells; else the help says <list[str]>.
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""  # Else the help says <bool>.
    return params


class Command(typer.core.TyperCommand):
    """A command with options."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(typer.core.TyperGroup):
    """A command with commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))
